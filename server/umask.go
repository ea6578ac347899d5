//go:build !windows

package server

import "syscall"

// withUmask runs f with a umask that makes new files accessible to their owner alone. It
// changes the whole process, which creates no other files during its start.
func withUmask(f func()) {
	defer syscall.Umask(syscall.Umask(0o177))
	f()
}
