package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"mimecast-proxy/config"
)

// open listens at an address that variable names. A taken port is an error at
// the start, and not later.
func (p Process) open(ctx context.Context, variable string, a config.Address, mode fs.FileMode) (net.Listener, error) {
	listen := p.listen
	if a.Network == "unix" {
		if err := clearStale(ctx, a.Address); err != nil {
			return nil, fmt.Errorf("%s=%v: %w", variable, a, err)
		}
		listen = p.listenPrivately
	}
	l, err := listen(ctx, a.Network, a.Address)
	if isTaken(err) {
		return nil, fmt.Errorf("%s=%v is taken by another program, perhaps by another mimecast-proxy; stop that one or set %s to another address: %w", variable, a, variable, err)
	}
	if isNotLocal(err) {
		return nil, fmt.Errorf("%s=%v is no address of this machine; remove it from %s, or give a network interface this address (for an IPv6 address, turn IPv6 on): %w", variable, a, variable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s=%v: %w", variable, a, err)
	}
	if a.Network == "unix" {
		if err := os.Chmod(a.Address, mode); err != nil {
			_ = l.Close() // the first error is the one to tell
			return nil, fmt.Errorf("%s=%v: setting the mode of the socket: %w", variable, a, err)
		}
	}
	return l, nil
}

// listenPrivately opens a socket that nobody else can connect to before its mode
// is set.
func (p Process) listenPrivately(ctx context.Context, network, address string) (l net.Listener, err error) {
	privately(func() { l, err = p.listen(ctx, network, address) })
	return l, err
}

// clearStale removes a socket that a killed process left behind. One that
// somebody listens at stays, and is in the way; so does anything else.
func clearStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a stale socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file at that path which is not a socket; remove it or choose another path")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another process listens there; stop it or choose another path"), conn.Close())
	}
	if !isRefused(err) {
		return fmt.Errorf("asking whether somebody listens there: %w", err)
	}
	return os.Remove(path)
}
