//go:build unix

package app

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwardable are the signals that Run passes on to its command, in addition to those in
// Env.Signals.
var forwardable = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// surviveBrokenPipes makes a write to a closed stdout or stderr fail, where SIGPIPE would end
// the process. It catches the signal, since the command of Run would inherit an ignored
// one.
func surviveBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// RereadSignals returns a channel that delivers SIGHUP, the signal to read all files at once.
// After this call, SIGHUP does not end the process.
func RereadSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals
}

// fromTerminal reports whether sig may have come from a key in the terminal. Then the command
// got it too, since both processes are in the foreground process group.
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
