package server

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connState says what a connection is to the proxy. The order of use is waiting,
// serving, idle, and then serving or waiting again.
type connState int32

const (
	waiting connState = iota // no request has reached the handler, bytes of one may have come
	serving                  // a request is in the handler, or a response is being sent
	idle                     // kept alive after a response, no byte of the next request has come
	closed
)

// A connection can be closed in favor of a new one once it has waited for its
// client's bytes for stalledAfter, or for stalledInFlood while connections of that
// kind come in numbers. A client that has sent its request is never closed,
// however late the request is read.
const (
	stalledAfter   = time.Second
	stalledInFlood = 25 * time.Millisecond
)

// connTable knows every connection of one port, and keeps their number within
// its limits: whoever opens connections and sends no request loses the oldest of
// them, and nobody else notices.
type connTable struct {
	limits Limits
	reject func(Rejection) []byte
	// writeTimeout is how long a client may take to accept what is written to
	// it, as a time.Duration. A drain lowers it.
	writeTimeout atomic.Int64
	counts       [closed + 1]atomic.Int64 // connections by state

	mu    sync.Mutex // guards conns; not held during I/O
	conns map[*conn]struct{}
	left  chan struct{} // capacity 1: a connection is no longer waiting

	// displaced counts the connections that were closed for new ones with less
	// than a second between them, and displacedAt is when the last was. Both are
	// of the goroutine that accepts.
	displaced   int
	displacedAt time.Time
}

func newConnTable(limits Limits, reject func(Rejection) []byte) *connTable {
	t := &connTable{limits: limits, reject: reject, conns: make(map[*conn]struct{}), left: make(chan struct{}, 1)}
	t.writeTimeout.Store(int64(limits.WriteTimeout))
	return t
}

// conn is a connection that a connTable counts.
type conn struct {
	net.Conn
	table *connTable
	state atomic.Int32
	// since is when state changed last, and reading when the Read under way
	// began, both in Unix nanoseconds. reading is 0 while there is none.
	since, reading atomic.Int64
	begun          atomic.Bool // a byte of the next request has come
}

// admit counts c. Past the limits it first closes the connection that has waited
// longest for its client, or else returns nil and closes c.
func (t *connTable) admit(c net.Conn) *conn {
	t.makeRoom()
	if t.total() >= t.limits.MaxConnections && !t.closeOldest(idle, 0) {
		_ = c.Close() // nothing was sent on it
		return nil
	}
	own := &conn{Conn: c, table: t}
	own.since.Store(time.Now().UnixNano())
	t.counts[waiting].Add(1)
	t.mu.Lock()
	t.conns[own] = struct{}{}
	t.mu.Unlock()
	return own
}

func (t *connTable) total() int {
	return int(t.counts[waiting].Load() + t.counts[serving].Load() + t.counts[idle].Load())
}

// makeRoom returns once there is room for another waiting connection. A burst of
// clients that do send their requests only has to wait until those are read.
func (t *connTable) makeRoom() {
	if t.limits.MaxWaiting == 0 {
		return
	}
	for t.counts[waiting].Load() >= int64(t.limits.MaxWaiting) && !t.displace() {
		timer := time.NewTimer(stalledInFlood)
		select {
		case <-t.left:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// displace closes the connection that has waited longest for its client, and
// reports whether there was one.
func (t *connTable) displace() bool {
	if time.Since(t.displacedAt) > time.Second {
		t.displaced = 0
	}
	stalled := stalledAfter
	if t.displaced >= t.limits.MaxWaiting {
		stalled = stalledInFlood
	}
	if !t.closeOldest(waiting, stalled) {
		return false
	}
	t.displaced++
	t.displacedAt = time.Now()
	return true
}

// closeOldest closes the connection that has been in a state for longest, and
// reports whether there was one. Waiting ones count from when they began to wait
// for their client's bytes, and only if that is at least so long ago.
func (t *connTable) closeOldest(state connState, atLeast time.Duration) bool {
	oldest, since := (*conn)(nil), time.Now().Add(-atLeast).UnixNano()
	t.mu.Lock()
	for c := range t.conns {
		if at := c.stateSince(state); at != 0 && at <= since {
			oldest, since = c, at
		}
	}
	t.mu.Unlock()
	if oldest == nil {
		return false
	}
	_ = oldest.Close() // of its client there was no whole request
	return true
}

// bound lowers what a client may take to accept a write, those under way
// included.
func (t *connTable) bound(writes time.Duration) {
	t.writeTimeout.Store(int64(writes))
	deadline := time.Now().Add(writes)
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.SetWriteDeadline(deadline) // one that is closed needs none
	}
}

// stateSince returns since when c is in a state, in Unix nanoseconds; 0 if it is
// in another, or if it is not blocked by its client.
func (c *conn) stateSince(state connState) int64 {
	if connState(c.state.Load()) != state {
		return 0
	}
	if state == waiting {
		return c.reading.Load()
	}
	return c.since.Load()
}

// become changes the state of a connection that is not closed.
func (c *conn) become(state connState) {
	before := connState(c.state.Load())
	for ; before != state && before != closed; before = connState(c.state.Load()) {
		if !c.state.CompareAndSwap(int32(before), int32(state)) {
			continue
		}
		c.since.Store(time.Now().UnixNano())
		c.table.counts[before].Add(-1)
		c.table.counts[state].Add(1)
		if before == waiting {
			c.table.noticeLeft()
		}
		return
	}
}

func (t *connTable) noticeLeft() {
	select {
	case t.left <- struct{}{}:
	default:
	}
}

// idled notes that a response is out. It closes the oldest idle connection past
// the limit.
func (c *conn) idled() {
	c.begun.Store(false)
	c.become(idle)
	if t := c.table; t.limits.MaxIdle > 0 && t.counts[idle].Load() > int64(t.limits.MaxIdle) {
		t.closeOldest(idle, 0)
	}
}

// Read implements net.Conn. An idle connection on which a request begins waits
// for the rest of it like a new one.
func (c *conn) Read(b []byte) (int, error) {
	state := connState(c.state.Load())
	if state == serving {
		return c.Conn.Read(b)
	}
	if state == idle && c.begun.Load() {
		c.become(waiting)
	}
	c.reading.Store(time.Now().UnixNano())
	n, err := c.Conn.Read(b)
	c.reading.Store(0)
	if n > 0 {
		c.begun.Store(true)
	}
	return n, err
}

// Write implements net.Conn. A client that does not read gets the connection
// closed: no response, no metric and no shutdown waits for it for longer than the
// write timeout. Where there is no request in the handler, it is a rejection of
// net/http's own that is written.
func (c *conn) Write(b []byte) (int, error) {
	if connState(c.state.Load()) == waiting {
		if response, ok := c.rejection(b); ok {
			c.become(serving)
			_, err := c.write(response)
			return len(b), err
		}
	}
	return c.write(b)
}

func (c *conn) write(b []byte) (int, error) {
	if timeout := c.table.writeTimeout.Load(); timeout > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(time.Duration(timeout))); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.become(closed)
	t := c.table
	t.mu.Lock()
	delete(t.conns, c)
	t.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite closes the sending half, so that a client that is still sending
// gets the response before the connection is reset.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// counted returns the connection of the table that c is, or is a TLS connection
// over; nil for another.
func counted(c net.Conn) *conn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	own, _ := c.(*conn)
	return own
}
