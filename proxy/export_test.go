package proxy

import "errors"

// Written reports whether the request of a failed attempt was written.
func Written(err error) bool {
	failed, ok := errors.AsType[*attemptError](err)
	return ok && failed.phase == written
}
