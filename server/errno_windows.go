package server

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsAddressInUse reports whether listening failed because another socket listens at the
// address. Windows' error numbers differ from those of package syscall.
func IsAddressInUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// isConnectionRefused reports whether no socket listens at the address.
func isConnectionRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

// isNotLocalAddress reports whether the machine has no such address, or no such family of
// addresses, for example if IPv6 is turned off.
func isNotLocalAddress(err error) bool {
	return errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}
