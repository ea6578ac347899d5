//go:build !windows

package server

import "syscall"

// withUmask runs f so that the files it makes are for their owner alone, from
// their first moment on. That holds for the whole process meanwhile, which at
// its start makes no others.
func withUmask(f func()) {
	defer syscall.Umask(syscall.Umask(0o177))
	f()
}
