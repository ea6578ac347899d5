//go:build !windows

package server

import (
	"errors"
	"syscall"
)

// IsTaken reports whether somebody else listens at the address.
func IsTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isRefused reports whether nobody listens at the address.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isNotLocal reports whether the machine has no such address, or no such family of
// addresses, as where IPv6 is turned off.
func isNotLocal(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
