package server

import (
	"errors"

	"golang.org/x/sys/windows"
)

// IsTaken reports whether somebody else listens at the address. Windows has
// numbers of its own for this, which are not those of package syscall.
func IsTaken(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// isRefused reports whether nobody listens at the address.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }

// isNotLocal reports whether the machine has no such address, or no such family of
// addresses, as where IPv6 is turned off.
func isNotLocal(err error) bool {
	return errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}
