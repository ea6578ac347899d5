//go:build unix

package app

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardable are the signals, besides those that end the proxy, that Run hands
// on to its command.
var forwardable = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// fromTerminal reports whether sig may have come from the terminal's keys, which
// reach the command too: both are then of the group in the foreground.
func fromTerminal(sig os.Signal) bool {
	if sig != os.Interrupt && sig != syscall.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return errors.Join(err, tty.Close()) == nil && group == unix.Getpgrp()
}
