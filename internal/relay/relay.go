// Package relay is a TCP proxy for tests that injects network faults. It resets, closes,
// stalls or slows down connections at an exact byte, and counts the connections hit. Tests
// thus do not depend on timing.
package relay

import (
	"context"
	"net"
	"sync"
	"time"
)

// Action is what a fault does to a connection. The empty Action does nothing.
type Action string

// The actions.
const (
	Reset Action = "reset" // both ends get a RST
	Close Action = "close" // both ends get a FIN
	Stall Action = "stall" // both ends stay open, but nothing is forwarded
)

// Direction is the direction of bytes on a connection.
type Direction int

// The directions.
const (
	Up   Direction = iota // to the target
	Down                  // from the target
)

// Fault is a fault to inject. The zero value injects none.
type Fault struct {
	// Direction is the direction in which bytes are counted and lost.
	Direction Direction
	// After is the number of bytes that pass in Direction on a connection after Set. At the
	// next byte, which is lost, Do happens.
	After int64
	// Do is what happens to the connection; empty means nothing.
	Do Action
	// Count is the number of connections to hit; 0 means all.
	Count int
	// Pace is the delay before each KiB in Direction; 0 means none.
	Pace time.Duration
}

// Relay forwards connections to a target. Create one with [Start]. Its methods are safe for
// concurrent use.
type Relay struct {
	target  string
	l       net.Listener
	running sync.WaitGroup
	ended   chan struct{}

	mu          sync.Mutex
	fault       Fault
	faultNumber int // incremented by Set; 0 before the first fault
	hits        int // of the current fault
	refusing    bool
	links       map[*link]bool
	accepted    int
	closed      bool
}

// Start returns a relay to target on a free loopback port, or an error if it cannot listen.
func Start(target string) (*Relay, error) { return StartAt("127.0.0.1:0", target) }

// StartAt returns a relay to target that listens at address, or an error if it cannot.
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

// Set replaces the fault and resets Hits.
func (r *Relay) Set(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.hits = f, 0
	r.faultNumber++
}

// Clear removes the fault. Connections that it stalled stay stalled.
func (r *Relay) Clear() { r.Set(Fault{}) }

// Refuse makes the relay reset each new connection, or stops that.
func (r *Relay) Refuse(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = yes
}

// Hits returns the number of connections that the current fault has hit.
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

// Accepted returns the number of connections accepted so far.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Inject applies an action to every open connection.
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
	_ = near.Close() // it may be closed already
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
		_ = t.SetLinger(0) // on failure, the close is not a reset
	}
	_ = c.Close()
}

// link is one forwarded connection with both its ends.
type link struct {
	relay     *Relay
	ends      [2]net.Conn // by the direction of the bytes that are read from it
	stallOnce sync.Once
	stalled   chan struct{}
	// Guarded by relay.mu:
	faultNumber int   // the fault that passed counts for
	passed      int64 // bytes in the fault's direction
}

func (l *link) inject(do Action) {
	switch do {
	case Reset:
		abort(l.ends[Up])
		abort(l.ends[Down])
	case Close:
		_ = l.ends[Up].Close() // it may be closed already
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
				_ = t.CloseWrite() // forward a half-close as a half-close
			}
			return
		}
	}
}

// pass forwards b as far as the fault allows. It returns false if nothing more may pass.
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
			_ = l.ends[direction].Close() // the other end is closed
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

// nextPiece returns the part of b to forward, the action after it, and the delay before it.
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
