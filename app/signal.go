//go:build unix

package app

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardable are the signals, except those that end the proxy, that Run hands
// on to its command.
var forwardable = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// surviveBrokenPipes makes a write to stdout or stderr fail if nobody reads
// it any more, which else ends the process. A signal that is ignored would be so
// in the command of Run too; one that is caught is not.
func surviveBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// RereadSignals returns a channel of the signals that ask to read all files at
// once. From then on they do not end the process.
func RereadSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals
}

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
