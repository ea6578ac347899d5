package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// ListenFunc opens a listener, as [net.ListenConfig.Listen] does.
type ListenFunc func(ctx context.Context, network, address string) (net.Listener, error)

// Listen opens a listener by listen, for the address that variable sets. A unix socket
// gets the mode; before that only its owner can connect to it. A stale socket is
// replaced. Errors name the variable and what to change.
func Listen(ctx context.Context, listen ListenFunc, variable, network, address string, mode fs.FileMode) (net.Listener, error) {
	setting := variable + "=" + address
	if network == "unix" {
		setting = variable + "=unix:" + address
		if err := removeStaleSocket(ctx, address); err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
	}
	l, err := listenPrivately(ctx, listen, network, address)
	switch {
	case IsAddressInUse(err):
		return nil, fmt.Errorf("%s is in use, perhaps by another mimecast-proxy; stop that program or set %s to another address: %w", setting, variable, err)
	case isNotLocalAddress(err):
		return nil, fmt.Errorf("%s is not an address of this machine; remove it from %s, or add it to a network interface (IPv6 must be on): %w", setting, variable, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	if network == "unix" {
		if err := os.Chmod(address, mode); err != nil {
			_ = l.Close() // the first error is the one to report
			return nil, fmt.Errorf("%s: setting the mode of the socket: %w", setting, err)
		}
	}
	return l, nil
}

// listenPrivately opens a socket under a umask that keeps others out before its mode is set.
func listenPrivately(ctx context.Context, listen ListenFunc, network, address string) (l net.Listener, err error) {
	if network != "unix" {
		return listen(ctx, network, address)
	}
	withUmask(func() { l, err = listen(ctx, network, address) })
	return l, err
}

// removeStaleSocket removes a socket that a killed process left behind. A socket that a
// process listens at, or another file, is an error.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for a stale socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("the file at that path is not a socket; remove it or choose another path")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another process listens there; stop it or choose another path"), conn.Close())
	}
	if !isConnectionRefused(err) {
		return fmt.Errorf("testing for a listener there: %w", err)
	}
	return os.Remove(path)
}
