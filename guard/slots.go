package guard

import (
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// slots bounds in-flight requests. Those of all clients are bounded before every check,
// since past the limit even a check is too much work.
type slots struct {
	max   int64 // 0: no bound
	taken *atomic.Int64
}

func newSlots(limit int64) slots { return slots{limit, new(atomic.Int64)} }

// take takes a slot, or reports that there is none. displace ends a request that has
// one, whose slot then counts as free, and reports whether it did; it may be nil.
func (s *slots) take(displace func() bool) bool {
	if n := s.taken.Add(1); s.max > 0 && n > s.max && (displace == nil || !displace()) {
		s.taken.Add(-1)
		return false
	}
	return true
}

func (s *slots) release() { s.taken.Add(-1) }

// unauthenticatedSlots returns how many slots clients without a key may take by
// sending token requests slowly: a quarter of all, but at most 64, so that the rest is
// for clients with a key.
func unauthenticatedSlots(all int) int64 {
	const most = 64
	if all == 0 {
		return most
	}
	return int64(max(1, min(most, all/4)))
}

// busyRetryAfter is the Retry-After for a client that found no slot.
const busyRetryAfter = time.Second

func (s *slots) tooBusy() *problem.Problem {
	return tooBusy("PROXY_MAX_REQUESTS", "The proxy has %d in-flight requests and accepts no more. Retry later, or raise PROXY_MAX_REQUESTS.", s.max)
}

// clientTooBusy returns the response to a client that has as many in-flight requests as it,
// or its account, may have.
func clientTooBusy(limit, detail string, args ...any) *problem.Problem {
	p := tooBusy(limit, detail, args...)
	p.LimitOwner = event.ComponentClient
	return p
}

// tooBusy returns the response to a client that found no slot. limit is the setting that
// bounds them.
func tooBusy(limit, detail string, args ...any) *problem.Problem {
	p := problem.New(event.TooBusy, detail, args...)
	p.RetryAfter, p.Limit = busyRetryAfter, limit
	return p
}
