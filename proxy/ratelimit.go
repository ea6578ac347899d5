package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
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
// in which they came: a crowd would only find the limit again. Each function of
// Mimecast's has its limit, and so each has its line. The zero value is open.
type gate struct {
	mu    sync.Mutex
	held  int
	lines map[string]*line
}

// line is who waits for one function. It is guarded by the gate's mu.
type line struct {
	places []*place // the first has the turn
	// until is the latest reset that any of them was told of: nobody goes before.
	until time.Time
}

// place is one request's in a line.
type place struct {
	gate     *gate
	function string
	line     *line
	turn     chan struct{} // closed when it is first
}

// join takes a place at the end of the line for a function, or nil where too
// many wait already.
func (g *gate) join(function string) *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held >= maxHeld {
		return nil
	}
	g.held++
	if g.lines == nil {
		g.lines = map[string]*line{}
	}
	l := g.lines[function]
	if l == nil {
		l = &line{}
		g.lines[function] = l
	}
	p := &place{gate: g, function: function, line: l, turn: make(chan struct{})}
	l.places = append(l.places, p)
	l.next()
	return p
}

// next gives the turn to whoever is first.
func (l *line) next() {
	if len(l.places) > 0 && !l.places[0].called() {
		close(l.places[0].turn)
	}
}

func (p *place) called() bool {
	select {
	case <-p.turn:
		return true
	default:
		return false
	}
}

// leave gives the place up.
func (p *place) leave() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held--
	p.line.places = slices.DeleteFunc(p.line.places, func(q *place) bool { return q == p })
	p.line.next()
	if len(p.line.places) == 0 {
		delete(g.lines, p.function)
	}
}

// limit tells the line that Mimecast lets nobody through before a reset.
func (p *place) limit(reset time.Time) {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	if reset.After(p.line.until) {
		p.line.until = reset
	}
}

func (p *place) until() time.Time {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	return p.line.until
}

// errNoTurn says that there is no attempt to be made before the deadline.
var errNoTurn = errors.New("others who were held back were still being sent")

// await waits for the turn, and then for the reset.
func (p *place) await(ctx context.Context, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-p.turn:
	case <-timer.C:
		return errNoTurn
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Whoever comes meanwhile may tell of a later reset.
	for until := p.until(); until.After(time.Now()); until = p.until() {
		if until.After(deadline) {
			return errNoTurn
		}
		if err := sleep(ctx, time.Until(until)); err != nil {
			return err
		}
	}
	return nil
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
	ctx := req.Context()
	deadline := time.Now().Add(t.RateLimitWait)
	reset, ok := resetOf(limited, deadline)
	if !ok {
		return t.held(ctx, HoldTooLong, limited), nil, nil
	}
	place := t.gate.join(req.URL.Opaque)
	if place == nil {
		return t.held(ctx, HoldTooLong, limited), nil, nil
	}
	defer place.leave()
	for ; ok; reset, ok = resetOf(limited, deadline) {
		place.limit(reset)
		park(limited)
		res, token, err := t.atTurn(req, body, place, deadline)
		switch {
		case errors.Is(err, errConsumed):
			return t.held(ctx, HoldNotReplayable, limited), nil, nil
		case errors.Is(err, errNoTurn):
			return t.held(ctx, HoldStillLimited, limited), nil, nil
		case err != nil:
			drop(limited)
			if ctx.Err() != nil {
				t.held(ctx, HoldAbandoned, nil)
			}
			return nil, nil, err
		}
		drop(limited)
		if limited = res; res.StatusCode != http.StatusTooManyRequests {
			return t.held(ctx, HoldRecovered, res), token, nil
		}
	}
	return t.held(ctx, HoldStillLimited, limited), nil, nil
}

// resetOf returns when the limit ends that an answer tells of, if that is in
// time.
func resetOf(limited *http.Response, deadline time.Time) (reset time.Time, ok bool) {
	now := time.Now()
	reset = now.Add(mimecast.RetryAfter(limited.Header, now))
	return reset, reset.After(now) && !reset.After(deadline)
}

func (t *Transport) held(ctx context.Context, h Hold, res *http.Response) *http.Response {
	if t.Trace.Held != nil {
		t.Trace.Held(ctx, string(h))
	}
	return res
}

// atTurn waits for the turn, and makes one attempt.
func (t *Transport) atTurn(req *http.Request, body *payload, p *place, deadline time.Time) (*http.Response, Token, error) {
	ctx := req.Context()
	if err := p.await(ctx, deadline); err != nil {
		return nil, nil, err
	}
	token, err := t.Source.Token(ctx)
	if err != nil {
		return nil, nil, err
	}
	res, err := t.send(req, token, body)
	return res, token, err
}
