// Package relay is a TCP proxy that injects network faults, for tests: it resets, closes,
// stalls or slows connections at an exact byte.
//
// It injects a fault at an exact byte and counts the connections hit, so that no test
// has to wait and hope.
package relay

import (
	"context"
	"net"
	"sync"
	"time"
)

// Action is what happens to a connection.
type Action string

// The actions.
const (
	Reset Action = "reset" // both ends get a RST
	Close Action = "close" // both ends get a FIN
	Stall Action = "stall" // both ends stay open, and nothing passes any more
)

// Direction is a direction in which bytes pass.
type Direction int

// The directions.
const (
	Up   Direction = iota // to the target
	Down                  // from it
)

// Fault is a fault to inject. The zero value is none.
type Fault struct {
	// Direction is the direction in which bytes are counted and lost.
	Direction Direction
	// After is how many bytes pass in that direction on a connection, counted from Set;
	// the next one is lost, and Do happens.
	After int64
	// Do is what happens to the connection; empty: nothing.
	Do Action
	// Count is how many connections are hit; 0: all.
	Count int
	// Pace is the delay before each KiB in that direction; 0: none.
	Pace time.Duration
}

// Relay forwards connections to a target. Make it with [Start].
type Relay struct {
	target  string
	l       net.Listener
	running sync.WaitGroup
	ended   chan struct{}

	mu          sync.Mutex
	fault       Fault
	faultNumber int // number of the fault, 0 before the first
	hits        int // by this fault
	refusing    bool
	links       map[*link]bool
	accepted    int
	closed      bool
}

// Start returns a relay to target, at a free port of loopback.
func Start(target string) (*Relay, error) { return StartAt("127.0.0.1:0", target) }

// StartAt returns a relay to target that listens at address.
func StartAt(address, target string) (*Relay, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	r := &Relay{target: target, l: l, links: map[*link]bool{}, ended: make(chan struct{})}
	r.running.Go(r.accept)
	return r, nil
}

// Addr returns the address at which the relay listens, as host:port.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Set replaces the fault by f and resets Hits.
func (r *Relay) Set(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.hits = f, 0
	r.faultNumber++
}

// Clear removes the fault. Connections that it stalled stay stalled.
func (r *Relay) Clear() { r.Set(Fault{}) }

// Refuse makes the relay reset each new connection, or stop doing so.
func (r *Relay) Refuse(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = yes
}

// Hits returns how many connections the fault has hit.
func (r *Relay) Hits() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hits
}

// Open returns the number of open connections.
func (r *Relay) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links)
}

// Accepted returns the number of connections so far.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Inject does something to every open connection.
func (r *Relay) Inject(do Action) {
	r.mu.Lock()
	var all []*link
	for l := range r.links {
		all = append(all, l)
	}
	r.mu.Unlock()
	for _, l := range all {
		l.inject(do)
	}
}

// Close closes the listener, resets all connections and waits until they have ended.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.l.Close()
	close(r.ended)
	r.Inject(Reset)
	r.running.Wait()
	return err
}

func (r *Relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.accepted++
		r.mu.Unlock()
		r.running.Go(func() { r.serve(c) })
	}
}

func (r *Relay) serve(near net.Conn) {
	far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", r.target)
	if err != nil {
		abort(near)
		return
	}
	l := &link{relay: r, ends: [2]net.Conn{Up: near, Down: far}, stalled: make(chan struct{})}
	if !r.add(l) {
		abort(near)
		abort(far)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(Up, far, near) })
	both.Go(func() { l.pump(Down, near, far) })
	both.Wait()
	_ = near.Close() // closed twice is closed
	_ = far.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.links, l)
}

func (r *Relay) add(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusing || r.closed {
		return false
	}
	r.links[l] = true
	return true
}

func abort(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // or else it ends in another way
	}
	_ = c.Close()
}

// link is one connection, with both its ends.
type link struct {
	relay     *Relay
	ends      [2]net.Conn // by the way that what is read from them goes
	stallOnce sync.Once
	stalled   chan struct{}
	// Guarded by relay.mu:
	faultNumber int   // that passed counts for
	passed      int64 // the fault's way
}

func (l *link) inject(do Action) {
	switch do {
	case Reset:
		abort(l.ends[Up])
		abort(l.ends[Down])
	case Close:
		_ = l.ends[Up].Close() // closed twice is closed
		_ = l.ends[Down].Close()
	case Stall:
		l.stallOnce.Do(func() { close(l.stalled) })
	}
}

func (l *link) pump(direction Direction, to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !l.pass(direction, to, buf[:n]) {
			return
		}
		if err != nil {
			if t, ok := to.(*net.TCPConn); ok {
				_ = t.CloseWrite() // a half-close stays one
			}
			return
		}
	}
}

// pass hands b on, as far as the fault lets it, and reports whether there may be
// more.
func (l *link) pass(direction Direction, to net.Conn, b []byte) bool {
	select {
	case <-l.stalled:
		<-l.relay.ended
		return false
	default:
	}
	for len(b) > 0 {
		piece, do, pace := l.nextPiece(direction, b)
		if pace > 0 && !l.wait(pace) {
			return false
		}
		if _, err := to.Write(piece); err != nil {
			_ = l.ends[direction].Close() // the other end is gone
			return false
		}
		if do != "" {
			l.inject(do)
			if do == Stall {
				<-l.relay.ended
			}
			return false
		}
		b = b[len(piece):]
	}
	return true
}

// nextPiece returns how much of b passes, and what happens then.
func (l *link) nextPiece(direction Direction, b []byte) (piece []byte, do Action, pace time.Duration) {
	r := l.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if l.faultNumber != r.faultNumber {
		l.faultNumber, l.passed = r.faultNumber, 0
	}
	f := r.fault
	if f.Direction != direction {
		return b, "", 0
	}
	if f.Pace > 0 {
		b, pace = b[:min(len(b), 1<<10)], f.Pace
	}
	left := f.After - l.passed
	l.passed += int64(len(b))
	if f.Do == "" || int64(len(b)) <= left || f.Count > 0 && r.hits >= f.Count {
		return b, "", pace
	}
	r.hits++
	return b[:max(left, 0)], f.Do, pace
}

func (l *link) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.relay.ended:
		return false
	}
}
