package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
)

const (
	// dialInterval is the pause between two dials that have no credit: at most
	// ten a second.
	dialInterval = 100 * time.Millisecond
	// burstDials may be made at once, after a second without any.
	burstDials = 16
	// nextDials are the further ones that each new connection allows: a burst
	// that needs many gets them as fast as they can be made, and one whose
	// requests can share a few makes no more.
	nextDials = 2
	// maxFailures is how many connections may fail in a row, while a request
	// waits for one, before it gives up.
	maxFailures = 3
)

// dialGate paces the dials: without it, each request that finds no connection
// dials, though one connection of HTTP/2 serves many, and an upstream that
// rejects each connection is dialed as fast as it can reject. After a
// failure the pace is one in dialInterval until a new connection has brought a
// response. The gate also ends the wait of requests that would each find out that
// connections fail.
type dialGate struct {
	mu       sync.Mutex
	credit   int           // dials that may be made at once
	last     time.Time     // of the last dial
	failures int           // connections that failed since one brought a response
	more     chan struct{} // closed and replaced when there is credit again
	waiting  map[*attempt]struct{}
	// expiry is when the first token expires of those that wait; the timer looks
	// then.
	expiry time.Time
	timer  *time.Timer
}

func newDialGate() *dialGate {
	return &dialGate{more: make(chan struct{}), waiting: map[*attempt]struct{}{}}
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// errNotNeeded ends a dial whose request has ended or got another connection.
var errNotNeeded = errors.New("the connection is not needed any more")

// dialWith returns dial with the pauses that are due.
func (g *dialGate) dialWith(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		a, ok := ctx.Value(attemptKey{}).(*attempt)
		if !ok {
			return dial(ctx, network, address)
		}
		if err := g.pace(ctx, a); err != nil {
			return nil, err
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		a.phase.CompareAndSwap(int32(connecting), int32(handshake))
		tracked := &trackedConn{Conn: c}
		tracked.madeFor.Store(a)
		tracked.ended, tracked.end = context.WithCancel(context.Background())
		return tracked, nil
	}
}

// pace waits until a dial is due, for as long as the attempt that it is for waits
// for a connection.
func (g *dialGate) pace(ctx context.Context, a *attempt) error {
	if a.unused.Add(1) > maxUnused {
		a.cancel(errConnectionsRejected)
		return errConnectionsRejected
	}
	served := g.waitOf(a)
	for {
		pause, more := g.take(time.Now())
		if pause <= 0 {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-more:
		case <-served:
		case <-ctx.Done():
		}
		timer.Stop()
		select {
		case <-served:
			return errNotNeeded
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
	}
}

// waitOf returns a channel that is closed once a no longer waits for a
// connection.
func (g *dialGate) waitOf(a *attempt) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	served := a.served
	if served == nil {
		served = make(chan struct{})
	}
	if _, waits := g.waiting[a]; waits {
		a.served = served
	} else {
		close(served)
	}
	return served
}

// take allows a dial at now, or returns how long to wait at most before the next call.
func (g *dialGate) take(now time.Time) (pause time.Duration, more <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since := now.Sub(g.last)
	if g.failures == 0 && since > time.Second {
		g.credit = burstDials // credit that an earlier burst left expires
	}
	switch {
	case g.credit > 0:
		g.credit--
	case since < dialInterval:
		return dialInterval - since, g.more
	}
	g.last = now
	return 0, nil
}

// allow lets so many dials be made at once. The lock is held.
func (g *dialGate) allow(n int) {
	g.credit += n
	close(g.more)
	g.more = make(chan struct{})
}

// connected notes that a request got a new connection.
func (g *dialGate) connected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == 0 {
		g.allow(nextDials)
	}
}

// startWaiting notes that an attempt waits for a connection, stopWaiting that it no
// longer does.
func (g *dialGate) startWaiting(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.failures = g.failures
	g.waiting[a] = struct{}{}
	if !a.expiry.IsZero() && (g.timer == nil || a.expiry.Before(g.expiry)) {
		g.scheduleExpiry(a.expiry)
	}
}

// scheduleExpiry sets the timer that calls expire. The lock is held.
func (g *dialGate) scheduleExpiry(at time.Time) {
	if g.timer != nil {
		g.timer.Stop()
	}
	g.expiry, g.timer = at, time.AfterFunc(time.Until(at), g.expire)
}

// expire ends the attempts whose token has expired while they wait. One that waits
// for another reason finds that out when it begins to wait for a connection.
func (g *dialGate) expire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	var next time.Time
	now := time.Now()
	for a := range g.waiting {
		switch {
		case a.expiry.IsZero():
		case !a.expiry.After(now):
			a.cancel(account.ErrTokenExpired)
		case next.IsZero() || a.expiry.Before(next):
			next = a.expiry
		}
	}
	if !next.IsZero() {
		g.scheduleExpiry(next)
	}
}

func (g *dialGate) stopWaiting(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, a)
	if a.served != nil {
		close(a.served)
		a.served = nil
	}
}

// succeeded notes that a new connection has brought a response.
func (g *dialGate) succeeded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == 0 {
		return
	}
	g.failures = 0
	for a := range g.waiting {
		a.failures = 0
	}
	g.allow(burstDials)
}

// failed notes that a connection could not be made, or ended without having
// brought a response. Requests that have waited through several failures end
// together, and not one after another.
func (g *dialGate) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.credit = 0
	g.failures++
	for a := range g.waiting {
		if g.failures-a.failures >= maxFailures {
			a.gaveUp.Store(true)
			a.cancel(err)
		}
	}
}

// trackedConn is a connection to the upstream that knows whether it has ended.
type trackedConn struct {
	net.Conn
	madeFor  atomic.Pointer[attempt] // nil once a request got it, which may be another
	answered atomic.Bool             // a response came on it
	failed   atomic.Bool             // it ended before, which counts once
	ended    context.Context
	end      context.CancelFunc
}

// Read implements net.Conn.
func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.end()
	}
	return n, err
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.end()
	return c.Conn.Close()
}

// findConn returns the connection that c's TLS goes over; nil if it is not
// ours.
func findConn(c net.Conn) *trackedConn {
	for {
		switch over := c.(type) {
		case *trackedConn:
			return over
		case interface{ NetConn() net.Conn }:
			c = over.NetConn()
		default:
			return nil
		}
	}
}
