//go:build !windows

package server

import (
	"errors"
	"syscall"
)

// IsAddressInUse reports whether listening failed because another socket listens at the
// address (EADDRINUSE).
func IsAddressInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isConnectionRefused reports whether no socket listens at the address.
func isConnectionRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// isNotLocalAddress reports whether the machine has no such address, or no such family of
// addresses, for example if IPv6 is turned off.
func isNotLocalAddress(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
