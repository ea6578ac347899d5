package api1

import (
	"maps"
	"sync"
	"time"

	"mimecast-proxy/account"
)

// maxCaught bounds what is remembered: the types of some 400 clients.
const maxCaught = 4096

// caughtUp remembers positions at which there was nothing more. A client's token says the
// same, but some clients keep a token only if a file came with it. It saves calls, and
// nothing depends on it. The zero value is empty.
type caughtUp struct {
	mu sync.Mutex
	at map[caughtKey]time.Time
}

// caughtKey is a position in a type of event of an account, for each client: another
// client may not have read as far.
type caughtKey struct {
	account  *account.Account
	kind     int
	position position
}

func (c *caughtUp) add(k caughtKey, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = map[caughtKey]time.Time{}
	}
	if len(c.at) >= maxCaught {
		maps.DeleteFunc(c.at, func(_ caughtKey, at time.Time) bool { return now.Sub(at) >= recheck })
	}
	if len(c.at) >= maxCaught {
		clear(c.at)
	}
	c.at[k] = now
}

func (c *caughtUp) has(k caughtKey, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.at[k]
	return ok && now.Sub(at) < recheck && !now.Before(at)
}
