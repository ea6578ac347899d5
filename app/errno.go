//go:build !windows

package app

import (
	"errors"
	"syscall"
)

// isTaken reports whether somebody else listens at the address.
func isTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isRefused reports whether nobody listens at the address.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
