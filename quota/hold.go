package quota

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/resend"
)

// limiter sends held requests one after the other, in order of arrival: all at once
// they would reach the limit again. Each function has its own limit, and so its own
// queue.
type limiter struct {
	places *places
	mu     sync.Mutex
	queues map[functionKey]*queue
}

// queue has the requests that wait for one function. It is guarded by the limiter's mu.
type queue struct {
	tickets []*ticket // the first one goes next
	// reset is the latest that any of them got. No request is sent before it.
	reset time.Time
}

// ticket is one request's place in a queue.
type ticket struct {
	limiter  *limiter
	function functionKey
	client   string
	queue    *queue
	first    chan struct{} // closed when it is the first
}

// enqueue returns a ticket at the end of a function's queue, or nil where too
// many requests wait already.
func (l *limiter) enqueue(f functionKey, client string) *ticket {
	if !l.places.take(f, client) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queues == nil {
		l.queues = map[functionKey]*queue{}
	}
	q := l.queues[f]
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

// release ends the request's place in the queue.
func (k *ticket) release() {
	l := k.limiter
	l.places.release(k.function, k.client)
	l.mu.Lock()
	defer l.mu.Unlock()
	k.queue.tickets = slices.DeleteFunc(k.queue.tickets, func(other *ticket) bool { return other == k })
	k.queue.next()
	if len(k.queue.tickets) == 0 {
		delete(l.queues, k.function)
	}
}

// limit notes that Mimecast accepts no request before a reset.
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

// errDeadline says that no attempt can be made before the deadline.
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
	// Responses that arrive meanwhile may state a later reset.
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

// resendWhenReady resends a request that got 429 until it gets another response. If
// waiting is useless, the 429 goes to the client.
func (l *layer) resendWhenReady(req *http.Request, limited *http.Response, deadline time.Time) (*http.Response, error) {
	ctx := req.Context()
	reset, ok := resetOf(limited, deadline)
	if !ok {
		return l.held(ctx, event.HoldTooLong, limited), nil
	}
	ticket := l.model.limiter.enqueue(functionOf(req), account.ClientOf(req))
	if ticket == nil {
		return l.held(ctx, event.HoldTooLong, limited), nil
	}
	defer ticket.release()
	for ; ok; reset, ok = resetOf(limited, deadline) {
		ticket.limit(reset)
		resend.BufferPrefix(limited)
		again, err := resend.Rewind(req)
		if err != nil {
			return l.held(ctx, event.HoldNotReplayable, limited), nil
		}
		if err := ticket.waitForReset(ctx, deadline); err != nil {
			resend.CloseBody(again)
			if errors.Is(err, errDeadline) {
				break
			}
			resend.DrainAndClose(limited)
			l.held(ctx, event.HoldAbandoned, nil)
			return nil, err
		}
		resend.DrainAndClose(limited)
		limited, err = l.send(again, l.model.again(req))
		switch {
		case err != nil:
			if ctx.Err() != nil {
				l.held(ctx, event.HoldAbandoned, nil)
			}
			return nil, err
		case limited.StatusCode != http.StatusTooManyRequests:
			return l.held(ctx, event.HoldRecovered, limited), nil
		}
	}
	return l.held(ctx, event.HoldStillLimited, limited), nil
}

// resetOf returns the reset that a response states, if that is in time.
func resetOf(limited *http.Response, deadline time.Time) (reset time.Time, ok bool) {
	now := time.Now()
	reset = now.Add(mimecast.RetryAfter(limited.Header, now))
	return reset, reset.After(now) && !reset.After(deadline)
}

func (l *layer) held(ctx context.Context, o event.HoldOutcome, res *http.Response) *http.Response {
	if l.model.opts.Trace.Held != nil {
		l.model.opts.Trace.Held(ctx, o)
	}
	return res
}
