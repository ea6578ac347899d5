package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/mimecast"
)

// Hold says how holding back a request that got 429 ended.
type Hold string

// The ways it can end.
const (
	HoldRecovered     Hold = "recovered"      // the answer to a later attempt was not 429
	HoldStillLimited  Hold = "still_limited"  // there was no time for another attempt
	HoldTooLong       Hold = "too_long"       // the reset was too far away, or not named, or too many waited
	HoldNotReplayable Hold = "not_replayable" // the body was gone
	HoldAbandoned     Hold = "abandoned"      // the client went away
)

// maxHeld bounds how many requests are held back at once. The rest get their
// 429, which costs less than a socket and a body each.
const maxHeld = 64

// gate lets requests that were held back go one after the other, in the order
// in which they came to it: a crowd would only find the limit again. The zero
// value is open.
type gate struct {
	held atomic.Int64
	once sync.Once
	turn chan struct{} // holds one value while somebody has the turn
}

// enter takes one of the places to wait in, if one is left.
func (g *gate) enter() bool {
	if g.held.Add(1) <= maxHeld {
		return true
	}
	g.held.Add(-1)
	return false
}

func (g *gate) leave() { g.held.Add(-1) }

// take waits for the turn until the deadline. Whoever got it gives it back by
// calling the func.
func (g *gate) take(ctx context.Context, deadline time.Time) (giveBack func(), err error) {
	g.once.Do(func() { g.turn = make(chan struct{}, 1) })
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case g.turn <- struct{}{}: // channels serve those who wait in order
		return func() { <-g.turn }, nil
	case <-timer.C:
		return nil, errNoTurn
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold sends a request that got 429 again, once the upstream's own reset is
// over, and no sooner. A 429 comes before anything is carried out, so that is
// safe for any method. Where waiting is no use, the 429 goes to the client. The
// token is the one that the answer's attempt was made with.
func (t *Transport) hold(req *http.Request, body *payload, limited *http.Response) (*http.Response, Token, error) {
	deadline := time.Now().Add(t.RateLimitWait)
	if !t.gate.enter() {
		return t.held(req.Context(), HoldTooLong, limited), nil, nil
	}
	defer t.gate.leave()
	for first := true; ; first = false {
		reset := time.Now().Add(mimecast.RetryAfter(limited.Header, time.Now()))
		if reset.After(deadline) || !reset.After(time.Now()) {
			return t.held(req.Context(), tooLong(first), limited), nil, nil
		}
		res, token, err := t.afterReset(req, body, reset, deadline)
		switch {
		case errors.Is(err, errConsumed):
			return t.held(req.Context(), HoldNotReplayable, limited), nil, nil
		case errors.Is(err, errNoTurn):
			return t.held(req.Context(), HoldStillLimited, limited), nil, nil
		case err != nil:
			drop(limited)
			if req.Context().Err() != nil {
				t.held(req.Context(), HoldAbandoned, nil)
			}
			return nil, nil, err
		}
		drop(limited)
		if limited = res; res.StatusCode != http.StatusTooManyRequests {
			return t.held(req.Context(), HoldRecovered, res), token, nil
		}
	}
}

func tooLong(first bool) Hold {
	if first {
		return HoldTooLong
	}
	return HoldStillLimited
}

func (t *Transport) held(ctx context.Context, h Hold, res *http.Response) *http.Response {
	if t.Trace.Held != nil {
		t.Trace.Held(ctx, string(h))
	}
	return res
}

// errNoTurn says that the deadline came before a request's turn.
var errNoTurn = errors.New("others who were held back were still being sent")

// afterReset waits for the reset and for its turn, and makes one attempt.
func (t *Transport) afterReset(req *http.Request, body *payload, reset, deadline time.Time) (*http.Response, Token, error) {
	ctx := req.Context()
	if err := sleep(ctx, time.Until(reset)); err != nil {
		return nil, nil, err
	}
	giveBack, err := t.gate.take(ctx, deadline)
	if err != nil {
		return nil, nil, err
	}
	defer giveBack()
	token, err := t.Source.Token(ctx)
	if err != nil {
		return nil, nil, err
	}
	res, err := t.send(req, token, body)
	return res, token, err
}
