package upstream

import (
	"errors"
	"time"
)

// Written reports whether the request of a failed attempt was written.
func Written(err error) bool {
	failed, ok := errors.AsType[*attemptError](err)
	return ok && failed.phase == written
}

// SetLife sets how long a transport gets new requests.
func (c *Connections) SetLife(d time.Duration) { c.life = d }
