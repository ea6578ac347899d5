package token

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

const (
	// retryCooldown is how long a token that was fetched because of a 401 is left in
	// place whatever Mimecast answers: a 401 that it did not cure has another
	// cause, and must not cost a token request each time.
	retryCooldown = 10 * time.Second
	// maxSleep bounds how long Run sleeps, so that a wake from sleep or a clock
	// that was set is noticed soon.
	maxSleep = 5 * time.Second
	// minBackoff and lastBackoff bound the pause after a failure.
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// ErrStopped is the answer to whoever waits for a token when Run has returned.
var ErrStopped = errors.New("the token source is stopped")

// Fetcher gets a new token. It returns an [*Error], or another error where its
// context ended.
type Fetcher interface {
	Fetch(ctx context.Context) (*Token, error)
	// Changed reports whether the credentials are others than those that the
	// last Fetch used.
	Changed() bool
}

// Trace is told what a Source does. Each func may be nil, is called on Run's
// goroutine, and must not block.
type Trace struct {
	Start func(event.TokenTrigger)
	// Done gets the new token, or an error.
	Done func(trigger event.TokenTrigger, took time.Duration, t *Token, err error)
}

// Source keeps a token fresh. Fetcher must be set; Run must be running for
// anybody to be served a token that is not held yet.
type Source struct {
	Fetcher Fetcher
	Trace   Trace

	once  sync.Once
	state atomic.Pointer[state] // written by Run alone
	wake  chan struct{}         // capacity 1: somebody needs what is not there
	// rejected is the token that Mimecast said no to. It counts only while it
	// is the held one, so it needs no reset.
	rejected atomic.Pointer[Token]
	// expired is the token that Mimecast itself says has expired, though its
	// lifetime has not passed. As for rejected, it needs no reset.
	expired atomic.Pointer[Token]
}

// state is what Run last found out. It is immutable; changed is closed when
// the next one is in place.
type state struct {
	token          *Token // nil before the first
	afterRejection bool   // token was fetched because of a 401
	err            error  // of the last fetch; nil after a success
	failures       int    // fetches failed in a row
	failedAt       time.Time
	retryAt        time.Time // no fetch before this one, while err is set
	stopped        bool
	changed        chan struct{}
}

func (s *Source) init() {
	s.once.Do(func() {
		s.wake = make(chan struct{}, 1)
		s.state.Store(&state{changed: make(chan struct{})})
	})
}

// Token returns the held token, or waits for the fetch of one. It returns at
// once while the token endpoint fails and it is not yet time to ask again. The
// error is an [*Error] whose RetryAfter says when that will be, [ErrStopped],
// or the cause of ctx.
func (s *Source) Token(ctx context.Context) (*Token, error) {
	s.init()
	for {
		st, now := s.state.Load(), time.Now()
		if s.usable(st.token, now) {
			return st.token, nil
		}
		if err := st.waitError(now); err != nil {
			return nil, err
		}
		if err := s.waitForChange(ctx, st); err != nil {
			return nil, err
		}
	}
}

// Renew returns a token other than rejected, which Mimecast answered with 401:
// the held one if it is newer, else a new one. It is a compare-and-swap, so
// that any number of requests which saw the same token rejected cause one
// fetch. It returns rejected itself where a renewal would not help, since it
// was fetched less than 10 s ago to replace another that was rejected.
func (s *Source) Renew(ctx context.Context, rejected *Token) (*Token, error) {
	s.init()
	for {
		before := s.rejected.Load() // and then the state: see below
		st, now := s.state.Load(), time.Now()
		if st.token == rejected {
			if st.inCooldown(now) {
				return rejected, nil
			}
			// Whoever has been overtaken must not call off the rejection of a
			// newer token.
			if !s.rejected.CompareAndSwap(before, rejected) {
				continue
			}
		}
		if s.usable(st.token, now) && s.rejected.Load() != st.token {
			return st.token, nil
		}
		if err := st.waitError(now); err != nil {
			return nil, err
		}
		if err := s.waitForChange(ctx, st); err != nil {
			return nil, err
		}
	}
}

// Expire makes t count as expired, since Mimecast rejected it as expired and
// [Source.Renew] returned an error: nobody is served t any more. It does nothing
// once another token is held.
func (s *Source) Expire(t *Token) {
	s.init()
	if s.state.Load().token == t {
		s.expired.Store(t)
	}
}

// usable reports whether t is to be handed out at now.
func (s *Source) usable(t *Token, now time.Time) bool {
	return t.ValidAt(now) && s.expired.Load() != t
}

// waitError returns why no fetch will be made at now, or nil.
func (st *state) waitError(now time.Time) error {
	if st.stopped {
		return ErrStopped
	}
	if !st.inBackoff(now) {
		return nil
	}
	err := &Error{Outcome: event.TokenFailed, Reason: "there is no token", Err: st.err}
	if e, ok := errors.AsType[*Error](st.err); ok {
		*err = *e
	}
	err.RetryAfter = st.retryAt.Sub(now)
	return err
}

// inBackoff reports whether the token endpoint is to be left alone at now. A
// clock that was set back since says nothing about the pause any more.
func (st *state) inBackoff(now time.Time) bool {
	return st.err != nil && now.Before(st.retryAt) && now.After(st.failedAt.Add(-time.Minute))
}

// inCooldown reports whether the token replaced another a moment ago that was
// rejected. One that has expired since is rejected for that, and is replaced.
func (st *state) inCooldown(now time.Time) bool {
	age := now.Sub(st.token.fetched)
	return st.afterRejection && 0 <= age && age < retryCooldown && st.token.ValidAt(now)
}

// waitForChange asks Run for a look at things and waits until it has something new to
// say. The fetch lives on Run's context, so that a caller who leaves does not
// end it for the others.
func (s *Source) waitForChange(ctx context.Context, st *state) error {
	select {
	case s.wake <- struct{}{}:
	default: // Run has yet to answer an earlier call, and will see ours then
	}
	select {
	case <-st.changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CredentialsChanged makes Run ask for a token at once if the Fetcher's credentials
// are others than those of the last fetch, whether a token is held or not and
// whatever pause there is. It does not block.
func (s *Source) CredentialsChanged() {
	s.init()
	select {
	case s.wake <- struct{}{}:
	default: // Run has yet to wake
	}
}

// Run fetches the first token and then keeps it fresh until ctx ends, with one
// token request under way at a time. Call it once. When it returns, so does
// everybody who waits for a token.
func (s *Source) Run(ctx context.Context) {
	s.init()
	defer func() {
		st := *s.state.Load()
		st.stopped = true
		s.publish(st)
	}()
	for ctx.Err() == nil {
		if trigger, due := s.due(time.Now()); due {
			s.fetch(ctx, trigger)
			continue
		}
		timer := time.NewTimer(s.sleepTime(time.Now()))
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due reports whether a fetch is to be made at now, and why.
func (s *Source) due(now time.Time) (event.TokenTrigger, bool) {
	st := s.state.Load()
	changed := s.Fetcher.Changed()
	if st.inBackoff(now) && !changed {
		return "", false
	}
	switch {
	case st.token == nil:
		return event.TriggerStartup, true
	case changed:
		return event.TriggerCredentials, true
	case s.rejected.Load() == st.token:
		return event.TriggerUnauthorized, true
	default:
		return event.TriggerExpiry, st.token.renewalDue(now)
	}
}

// sleepTime returns how long there is nothing to do, glance at the most.
func (s *Source) sleepTime(now time.Time) time.Duration {
	st := s.state.Load()
	next := st.retryAt
	if st.err == nil {
		next = st.token.renewAt()
	}
	// The floor keeps a clock that runs oddly from making this a busy loop.
	return min(max(next.Sub(now), 10*time.Millisecond), maxSleep)
}

func (s *Source) fetch(ctx context.Context, trigger event.TokenTrigger) {
	if s.Trace.Start != nil {
		s.Trace.Start(trigger)
	}
	began := time.Now()
	t, err := s.Fetcher.Fetch(ctx)
	if ctx.Err() != nil && err != nil {
		return // told to stop: not the token endpoint's failure
	}
	if s.Trace.Done != nil {
		s.Trace.Done(trigger, time.Since(began), t, err)
	}
	if err != nil {
		s.recordFailure(err)
		return
	}
	s.publish(state{token: t, afterRejection: trigger == event.TriggerUnauthorized})
}

func (s *Source) recordFailure(err error) {
	st := *s.state.Load()
	st.err = err
	st.failures++
	st.failedAt = time.Now().Round(0)
	st.retryAt = st.failedAt.Add(backoff(st.failures, err))
	s.publish(st)
}

func (s *Source) publish(st state) {
	st.changed = make(chan struct{})
	close(s.state.Swap(&st).changed)
}

// backoff returns how long to leave the token endpoint alone after that many
// failures in a row: twice as long each time, with jitter so that a fleet does
// not ask in step, and never shorter than the endpoint asked for.
func backoff(failures int, err error) time.Duration {
	d := min(minBackoff<<min(failures-1, 10), maxBackoff)
	d = d/2 + rand.N(d/2+1)
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, min(e.RetryAfter, mimecast.LongestWait))
	}
	return d
}

// Status is what a Source knows, for people and probes.
type Status struct {
	// Held and Valid are about its lifetime; Rejected says that Mimecast
	// answered 401 to it all the same.
	Held, Valid, Rejected bool
	// Fetched, Expiry and NextRenewal are zero while no token is held.
	Fetched, Expiry, NextRenewal time.Time
	// Err is why the last fetch failed, nil after a success.
	Err      error
	Failures int
	// FailedAt and RetryAt are zero while Err is nil.
	FailedAt, RetryAt time.Time
}

// Status returns what is known now.
func (s *Source) Status() Status {
	s.init()
	st := s.state.Load()
	status := Status{Err: st.err, Failures: st.failures, FailedAt: st.failedAt, RetryAt: st.retryAt}
	if t := st.token; t != nil {
		status.Held, status.Valid, status.Rejected = true, s.usable(t, time.Now()), s.rejected.Load() == t
		status.Fetched, status.Expiry, status.NextRenewal = t.fetched, t.expiry, t.renewAt()
		if st.err != nil && st.retryAt.After(status.NextRenewal) {
			status.NextRenewal = st.retryAt
		}
	}
	return status
}
