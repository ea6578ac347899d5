package server

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsAddressInUse reports whether somebody else listens at the address. Windows has
// numbers of its own for this, which are not those of package syscall.
func IsAddressInUse(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// isConnectionRefused reports whether nobody listens at the address.
func isConnectionRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

// isNotLocalAddress reports whether the machine has no such address, or no such family of
// addresses, as where IPv6 is turned off.
func isNotLocalAddress(err error) bool {
	return errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}
