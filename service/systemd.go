//go:build !windows

package service

import (
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// adminSocket is the FileDescriptorName= of the admin listener's socket. Any
// other name, and none, is the data port's.
const adminSocket = "admin"

// Main runs the program under whoever keeps it running and returns its exit
// code. Sockets and variables of systemd's are taken from the environment, so
// that no command which the program starts inherits them.
func Main(program func(Keeper) int) (code int, err error) {
	k := console()
	if err := k.takeSockets(activation.Files(true)); err != nil {
		return 0, err
	}
	if k.Watchdog, err = daemon.SdWatchdogEnabled(true); err != nil {
		return 0, err
	}
	k.Ready = func(status string) { k.notify(daemon.SdNotifyReady + "\nSTATUS=" + status) }
	k.Stopping = func() { k.notify(daemon.SdNotifyStopping + "\nSTATUS=Draining") }
	k.Alive = func() { k.notify(daemon.SdNotifyWatchdog) }
	return program(k), nil
}

func (k *Keeper) takeSockets(files []*os.File) error {
	for _, f := range files {
		l, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("taking the socket %q from systemd; it must be a ListenStream=: %w", f.Name(), err)
		}
		_ = f.Close() // l has a copy
		into := &k.Data
		if f.Name() == adminSocket {
			into = &k.Admin
		}
		if *into != nil {
			return fmt.Errorf("systemd hands over the sockets %v and %v for the same listener: leave one ListenStream=, or give the admin listener's FileDescriptorName=%s", (*into).Addr(), l.Addr(), adminSocket)
		}
		*into = l
	}
	return nil
}

// notify tells systemd, where it is the keeper.
func (k *Keeper) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		fmt.Fprintln(k.Log, "mimecast-proxy: telling systemd:", err)
	}
}
