package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"mimecast-proxy/resend"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

// The requests that are held back are bounded, since each costs a socket and a
// body; the rest get their 429. No client has more than half of the places, and no
// function of Mimecast's leaves nothing to the others.
const (
	maxHeld         = 128
	maxHeldClient   = 64
	maxHeldFunction = 96
)

// Limit returns the layer that holds a request that got 429, for wait at most, and
// resends it once Mimecast's own reset has passed. A 429 comes before anything is
// carried out, so that is safe for any method. 0 passes each 429 on.
func Limit(wait time.Duration, trace Trace) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &limit{next: next, wait: wait, trace: trace} }
}

type limit struct {
	next    http.RoundTripper
	wait    time.Duration
	trace   Trace
	limiter limiter
}

// RoundTrip implements http.RoundTripper.
func (t *limit) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusTooManyRequests || t.wait <= 0 {
		return res, err
	}
	return t.resendWhenReady(req, res)
}

// limiter lets requests that were held back go one after the other, in the order
// in which they came: a crowd would only find the limit again. Each function of
// Mimecast's has its limit, and so each has its queue. The zero value is ready.
type limiter struct {
	mu      sync.Mutex
	held    int
	clients map[string]int // how many each client has
	queues  map[function]*queue
}

// function is what Mimecast counts by: each account has its own quota of each.
type function struct {
	account *account.Account
	path    string
}

// queue is who waits for one function. It is guarded by the limiter's mu.
type queue struct {
	tickets []*ticket // the first one goes next
	// reset is the latest that any of them got: none is sent before.
	reset time.Time
}

// ticket is one request's place in a queue.
type ticket struct {
	limiter  *limiter
	function function
	client   string
	queue    *queue
	first    chan struct{} // closed when it is the first
}

// enqueue returns a ticket at the end of a function's queue, or nil where too
// many requests wait already.
func (l *limiter) enqueue(f function, client string) *ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queues == nil {
		l.clients, l.queues = map[string]int{}, map[function]*queue{}
	}
	q := l.queues[f]
	if l.held >= maxHeld || l.clients[client] >= maxHeldClient || q != nil && len(q.tickets) >= maxHeldFunction {
		return nil
	}
	l.held++
	l.clients[client]++
	if q == nil {
		q = &queue{}
		l.queues[f] = q
	}
	k := &ticket{limiter: l, function: f, client: client, queue: q, first: make(chan struct{})}
	q.tickets = append(q.tickets, k)
	q.next()
	return k
}

// next gives the turn to the first.
func (q *queue) next() {
	if len(q.tickets) > 0 && !q.tickets[0].ready() {
		close(q.tickets[0].first)
	}
}

func (k *ticket) ready() bool {
	select {
	case <-k.first:
		return true
	default:
		return false
	}
}

// release gives the place up.
func (k *ticket) release() {
	l := k.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	if l.clients[k.client]--; l.clients[k.client] == 0 {
		delete(l.clients, k.client)
	}
	k.queue.tickets = slices.DeleteFunc(k.queue.tickets, func(other *ticket) bool { return other == k })
	k.queue.next()
	if len(k.queue.tickets) == 0 {
		delete(l.queues, k.function)
	}
}

// limit notes that Mimecast accepts none before a reset.
func (k *ticket) limit(reset time.Time) {
	k.limiter.mu.Lock()
	defer k.limiter.mu.Unlock()
	if reset.After(k.queue.reset) {
		k.queue.reset = reset
	}
}

func (k *ticket) reset() time.Time {
	k.limiter.mu.Lock()
	defer k.limiter.mu.Unlock()
	return k.queue.reset
}

// errDeadline says that there is no attempt to be made before the deadline.
var errDeadline = errors.New("others who were held back were still being sent")

// waitForReset waits for the turn, and then for the reset.
func (k *ticket) waitForReset(ctx context.Context, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-k.first:
	case <-timer.C:
		return errDeadline
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Those that come meanwhile may tell of a later reset.
	for reset := k.reset(); reset.After(time.Now()); reset = k.reset() {
		if reset.After(deadline) {
			return errDeadline
		}
		select {
		case <-time.After(time.Until(reset)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// resendWhenReady resends a request that got 429 until it gets another response or
// waiting is of no use: then the 429 goes to the client.
func (t *limit) resendWhenReady(req *http.Request, limited *http.Response) (*http.Response, error) {
	ctx := req.Context()
	deadline := time.Now().Add(t.wait)
	reset, ok := resetOf(limited, deadline)
	if !ok {
		return t.held(ctx, event.HoldTooLong, limited), nil
	}
	ticket := t.limiter.enqueue(function{account.Of(ctx), req.URL.Opaque}, account.ClientOf(req))
	if ticket == nil {
		return t.held(ctx, event.HoldTooLong, limited), nil
	}
	defer ticket.release()
	for ; ok; reset, ok = resetOf(limited, deadline) {
		ticket.limit(reset)
		bufferPrefix(limited)
		again, err := resend.Rewind(req)
		if err != nil {
			return t.held(ctx, event.HoldNotReplayable, limited), nil
		}
		if err := ticket.waitForReset(ctx, deadline); err != nil {
			resend.CloseBody(again)
			if errors.Is(err, errDeadline) {
				break
			}
			drainAndClose(limited)
			t.held(ctx, event.HoldAbandoned, nil)
			return nil, err
		}
		drainAndClose(limited)
		limited, err = t.next.RoundTrip(again)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				t.held(ctx, event.HoldAbandoned, nil)
			}
			return nil, err
		case limited.StatusCode != http.StatusTooManyRequests:
			return t.held(ctx, event.HoldRecovered, limited), nil
		}
	}
	return t.held(ctx, event.HoldStillLimited, limited), nil
}

// resetOf returns when the limit ends that a response names, if that is in
// time.
func resetOf(limited *http.Response, deadline time.Time) (reset time.Time, ok bool) {
	now := time.Now()
	reset = now.Add(mimecast.RetryAfter(limited.Header, now))
	return reset, reset.After(now) && !reset.After(deadline)
}

func (t *limit) held(ctx context.Context, o event.HoldOutcome, res *http.Response) *http.Response {
	if t.trace.Held != nil {
		t.trace.Held(ctx, o)
	}
	return res
}
