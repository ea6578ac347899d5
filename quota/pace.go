package quota

import (
	"context"
	"net/http"
	"slices"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// admit waits until a request may be sent, and returns how long it waited. The error is a
// problem, or the context's.
func (m *Model) admit(req *http.Request) (c call, waited time.Duration, err error) {
	ctx, key := req.Context(), functionOf(req)
	m.mu.Lock()
	f := m.function(key)
	if f == nil {
		m.mu.Unlock()
		return call{}, 0, nil
	}
	began := time.Now()
	c, w, wait, outcome := f.enter(account.ClientOf(req), began)
	m.mu.Unlock()
	switch outcome {
	case goesNow:
		return c, 0, nil
	case event.PaceWouldWait:
		m.report(ctx, f, wait, outcome)
		return c, 0, nil
	case event.PaceTooLong, event.PaceTooMany:
		m.report(ctx, f, 0, outcome)
		return c, 0, tooEarly(wait)
	case event.PaceWaited, event.PaceAbandoned:
	}
	defer m.places.release(f.key(), account.ClientOf(req))
	c, outcome, err = m.await(ctx, f, w, began.Add(m.opts.Wait))
	waited = time.Since(began)
	m.report(ctx, f, waited, outcome)
	return c, waited, err
}

// goesNow is the outcome of a call that is not too early.
const goesNow event.PaceOutcome = ""

// enter lets a call go or makes it wait, unless waiting is useless. wait is the estimated
// time.
func (f *function) enter(name string, now time.Time) (c call, w *waiter, wait time.Duration, outcome event.PaceOutcome) {
	m, client := f.model, f.client(name)
	f.pump(now)
	if m.opts.Pace == Off {
		return f.take(client, passes, now), nil, 0, goesNow
	}
	if d := f.decide(client, now); d != waits {
		return f.take(client, d, now), nil, 0, goesNow
	}
	if m.opts.Pace == Observe {
		turn := f.turn(now, 0)
		f.next = turn.Add(f.window.interval(now)) // as if it had waited
		return f.take(client, passes, now), nil, turn.Sub(now), event.PaceWouldWait
	}
	wait = f.turn(now, f.ahead(client)).Sub(now)
	if wait > m.opts.Wait {
		return c, nil, wait, event.PaceTooLong
	}
	if !m.places.take(f.key(), name) {
		return c, nil, wait, event.PaceTooMany
	}
	w = &waiter{client: client, turn: make(chan call, 1)}
	client.waiting++
	f.waiters = append(f.waiters, w)
	f.setTimer(now)
	return c, w, wait, event.PaceWaited
}

// await waits for a call's turn.
func (m *Model) await(ctx context.Context, f *function, w *waiter, deadline time.Time) (call, event.PaceOutcome, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case c := <-w.turn:
		return c, event.PaceWaited, nil
	case <-timer.C:
		return m.leave(f, w, nil)
	case <-ctx.Done():
		return m.leave(f, w, context.Cause(ctx))
	}
}

// leave ends a call's wait, because of a cause or the time. If it got its turn in the
// meantime, it goes, or passes the turn to the next.
func (m *Model) leave(f *function, w *waiter, cause error) (c call, outcome event.PaceOutcome, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	i := slices.Index(f.waiters, w)
	switch {
	case i < 0 && cause == nil:
		return <-w.turn, event.PaceWaited, nil
	case i < 0:
		f.failed(<-w.turn, false, now)
	default:
		f.remove(i)
		f.pump(now)
	}
	if cause != nil {
		return c, event.PaceAbandoned, cause
	}
	return c, event.PaceTooLong, tooEarly(f.turn(now, f.ahead(w.client)).Sub(now))
}

// report counts how pacing a call ended.
func (m *Model) report(ctx context.Context, f *function, waited time.Duration, outcome event.PaceOutcome) {
	m.mu.Lock()
	if f.paced == nil {
		f.paced = map[event.PaceOutcome]uint64{}
	}
	f.paced[outcome]++
	f.waited += waited
	m.mu.Unlock()
	if m.opts.Trace.Paced != nil {
		m.opts.Trace.Paced(ctx, f.label, waited, outcome)
	}
}

// tooEarly is the response to a call whose turn comes too late; turn is the time until then.
func tooEarly(turn time.Duration) *problem.Problem {
	turn = min(max(turn, time.Second), maxWindow)
	p := problem.New(event.TooBusy, "Mimecast's quota for this function is in use: the next turn is in %s. Send fewer requests, or raise PROXY_RATE_LIMIT_WAIT.",
		turn.Round(time.Second))
	p.RetryAfter, p.Limit, p.LimitOwner = turn, "PROXY_RATE_LIMIT_WAIT", event.ComponentMimecast
	return p
}

func (f *function) key() functionKey { return functionKey{f.account, f.path} }
