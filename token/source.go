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
	// retryCooldown is how long a token that was fetched because of a 401 is not
	// replaced because of another 401, which then has another cause and must not cost
	// a token request each time.
	retryCooldown = 10 * time.Second
	// maxSleep bounds how long Run sleeps, so that it notices soon if the machine was
	// suspended or its clock was set.
	maxSleep = 5 * time.Second
	// minBackoff and maxBackoff bound the backoff after a failure.
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// ErrStopped is returned to requests that wait for a token once Run has returned.
var ErrStopped = errors.New("the token source is stopped")

// Fetcher requests tokens. [ClientCredentials] is one.
type Fetcher interface {
	// Fetch requests one token. The error is an [*Error], or another one if ctx ended.
	Fetch(ctx context.Context) (*Token, error)
	// Changed reports whether the credentials differ from those of the last Fetch.
	Changed() bool
}

// Trace reports what a Source does. Each func may be nil, is called on Run's goroutine,
// and must not block.
type Trace struct {
	// Start is called before each fetch.
	Start func(event.TokenTrigger)
	// Done is called after each fetch, with the new token or an error.
	Done func(trigger event.TokenTrigger, took time.Duration, t *Token, err error)
}

// Source caches a token and renews it. Fetcher must be set before the first call. Token
// and Renew wait for the goroutine that runs [Source.Run]. All methods but Run may be
// called by several goroutines at once.
type Source struct {
	// Fetcher requests the tokens.
	Fetcher Fetcher
	// Trace reports each fetch; the zero value reports none.
	Trace Trace

	once  sync.Once
	state atomic.Pointer[state] // written by Run alone
	wake  chan struct{}         // capacity 1: Run must check what is due
	// rejected is the token that got 401 from Mimecast. It counts only while it is
	// the current one, so it needs no reset.
	rejected atomic.Pointer[Token]
	// expired is the token that Mimecast rejected as expired before its expiry. Like
	// rejected, it needs no reset.
	expired atomic.Pointer[Token]
}

// state is Run's current state. It is immutable; changed is closed when the next one
// replaces it.
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

// Token returns the current token, or waits until one is fetched. During a backoff it
// returns an error at once. The error is an [*Error] with the time until the next token
// request in RetryAfter, [ErrStopped], or the cause of ctx.
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

// Renew returns a token other than rejected, which got 401 from Mimecast: the
// current one if it is newer, else a new one. It is a compare-and-swap, so that any
// number of requests whose token was rejected cause one fetch. It returns rejected if
// that token was fetched less than 10 s ago because of another 401: then a renewal does
// not help. The error is as for [Source.Token].
func (s *Source) Renew(ctx context.Context, rejected *Token) (*Token, error) {
	s.init()
	for {
		before := s.rejected.Load() // and then the state: see below
		st, now := s.state.Load(), time.Now()
		if st.token == rejected {
			if st.inCooldown(now) {
				return rejected, nil
			}
			// A late caller must not overwrite the rejection of a newer token.
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

// Expire makes t count as expired: call it if Mimecast rejected t as expired and
// [Source.Renew] returned an error. It does nothing if t is not the current token.
func (s *Source) Expire(t *Token) {
	s.init()
	if s.state.Load().token == t {
		s.expired.Store(t)
	}
}

// usable reports whether t may be used at now.
func (s *Source) usable(t *Token, now time.Time) bool {
	return t.ValidAt(now) && s.expired.Load() != t
}

// waitError returns why waiting for a fetch is no use at now; nil outside a backoff.
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

// inBackoff reports whether no token request may be made at now. If the clock was set
// back since the failure, the backoff ends.
func (st *state) inBackoff(now time.Time) bool {
	return st.err != nil && now.Before(st.retryAt) && now.After(st.failedAt.Add(-time.Minute))
}

// inCooldown reports whether the token replaced a rejected one less than retryCooldown
// ago. If it has expired since, that is the cause of the rejection, and it is replaced.
func (st *state) inCooldown(now time.Time) bool {
	age := now.Sub(st.token.fetched)
	return st.afterRejection && 0 <= age && age < retryCooldown && st.token.ValidAt(now)
}

// waitForChange wakes Run and waits for its next state. The fetch uses Run's context, so
// that a client that disconnects does not cancel it for the others.
func (s *Source) waitForChange(ctx context.Context, st *state) error {
	select {
	case s.wake <- struct{}{}:
	default: // an earlier wake is pending, and serves this caller too
	}
	select {
	case <-st.changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CredentialsChanged makes Run fetch a token at once if the Fetcher's credentials have
// changed since the last fetch, even if the token is valid or a backoff runs. It does
// not block.
func (s *Source) CredentialsChanged() {
	s.init()
	select {
	case s.wake <- struct{}{}:
	default: // an earlier wake is pending
	}
}

// Run fetches the first token and renews it until ctx ends, with at most one token
// request in flight. Call it once. When it returns, callers that wait for a token get
// [ErrStopped].
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

// sleepTime returns the time until the next fetch is due, at most maxSleep.
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
		return // canceled: not the token endpoint's failure
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

// backoff returns the time until the next token request after that many failures in a
// row: it doubles each time, has jitter so that replicas do not retry in step, and is
// never shorter than Retry-After.
func backoff(failures int, err error) time.Duration {
	d := min(minBackoff<<min(failures-1, 10), maxBackoff)
	d = d/2 + rand.N(d/2+1)
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, min(e.RetryAfter, mimecast.LongestWait))
	}
	return d
}

// Status is the state of a Source, for the status page and probes.
type Status struct {
	// Held is true once there was a token, Valid until it expires, and Rejected if
	// it got 401 from Mimecast.
	Held, Valid, Rejected bool
	// Fetched, Expiry and NextRenewal are zero before the first token.
	Fetched, Expiry, NextRenewal time.Time
	// Err is why the last fetch failed; nil after a success.
	Err error
	// Failures is the number of failed fetches in a row.
	Failures int
	// FailedAt and RetryAt are zero while Err is nil.
	FailedAt, RetryAt time.Time
}

// Usable reports whether requests can be sent with the token.
func (s *Status) Usable() bool { return s.Valid && !s.Rejected }

// Status returns the current state.
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
