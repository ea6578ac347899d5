//go:build !windows

package server

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// adminSocket is the FileDescriptorName= of the admin listener's socket. A socket with
// any other name, or none, is the data port's.
const adminSocket = "admin"

// notifyTimeout bounds how long the exit waits until systemd has read the last state.
const notifyTimeout = time.Second

// RunSupervised runs the program under systemd or at a console and returns its exit code.
// It removes systemd's sockets and variables from the environment, so that no command
// that the program starts inherits them. The error is about sockets or variables that
// cannot be used; the program has not run then.
func RunSupervised(program func(Supervisor) int) (code int, err error) {
	s := atConsole()
	if err := s.takeSockets(activation.Files(true)); err != nil {
		return 0, err
	}
	if s.Watchdog, err = daemon.SdWatchdogEnabled(true); err != nil {
		return 0, err
	}
	states := make(chan string, 4)
	notified := make(chan struct{})
	go func() {
		defer close(notified)
		s.sendStates(states)
	}()
	notify := func(state string) {
		select {
		case states <- state:
		default: // systemd does not read, and the program does not wait for it
		}
	}
	s.Ready = func(status string) { notify(daemon.SdNotifyReady + "\nSTATUS=" + status) }
	s.Stopping = func() { notify(daemon.SdNotifyStopping + "\nSTATUS=Draining") }
	s.Alive = func() { notify(daemon.SdNotifyWatchdog) }
	code = program(s)
	close(states)
	select {
	case <-notified:
	case <-time.After(notifyTimeout):
	}
	return code, nil
}

func (s *Supervisor) takeSockets(files []*os.File) error {
	for _, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("taking the socket %q from systemd; it must be a ListenStream=: %w", f.Name(), err)
		}
		_ = f.Close() // l has a copy
		into := &s.Data
		if f.Name() == adminSocket {
			into = &s.Admin
		}
		if *into != nil {
			return fmt.Errorf("systemd hands over the sockets %v and %v for the same listener: leave one ListenStream=, or give the admin listener's FileDescriptorName=%s", (*into).Addr(), l.Addr(), adminSocket)
		}
		*into = l
	}
	return nil
}

// sendStates sends each state to systemd (sd_notify(3)), if that started the program. A
// socket that systemd does not read blocks only this goroutine.
func (s *Supervisor) sendStates(states <-chan string) {
	for state := range states {
		if _, err := daemon.SdNotify(false, state); err != nil {
			fmt.Fprintln(s.Log, "mimecast-proxy: notifying systemd:", err)
		}
	}
}
