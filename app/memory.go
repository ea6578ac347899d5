//go:build !linux

package app

// HideMemory does nothing on this system. On Linux it keeps other processes of the same user
// from reading this process's memory and environment.
func HideMemory() {}
