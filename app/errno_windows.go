package app

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isTaken reports whether somebody else listens at the address. Windows has
// numbers of its own for this, which are not those of package syscall.
func isTaken(err error) bool { return errors.Is(err, windows.WSAEADDRINUSE) }

// isRefused reports whether nobody listens at the address.
func isRefused(err error) bool { return errors.Is(err, windows.WSAECONNREFUSED) }
