//go:build !linux

package app

// HideMemory does nothing here. On Linux it keeps other processes of the same
// user from reading this one's memory and environment.
func HideMemory() {}
