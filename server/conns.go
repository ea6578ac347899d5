package server

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// connState is the state of a client's connection. The usual course is waiting, serving,
// idle, and then serving and idle in turns.
type connState int32

const (
	waiting  connState = iota // new, and no byte has come
	partial                   // bytes of a request have come, and it has not reached the handler
	serving                   // a request is in the handler, or its response is being sent
	rejected                  // net/http rejected the request, and waits for the client to read the response
	idle                      // kept alive after a response, and no byte of the next request has come
	closed
)

// A connection can be closed in favor of a new one once its client has sent
// nothing for so long: a waiting one after silentAfter, and in a flood of them after
// silentInFlood; one on which a request has begun after stalledAfter. A client that
// has sent its request is never closed, however late the request is read.
const (
	silentAfter   = time.Second
	silentInFlood = 250 * time.Millisecond
	stalledAfter  = 50 * time.Millisecond
)

// tlsHandshake is the first byte of a TLS connection (RFC 8446, section 5.1), and of no
// HTTP request.
const tlsHandshake = 0x16

// connTable tracks every connection of one server, and keeps their number within its
// limits: a client that opens connections without sending requests loses the oldest of
// them, and no other client notices.
type connTable struct {
	limits Limits
	reject func(Rejection) []byte
	// writeTimeout is how long a client may take to accept what is written to
	// it, as a time.Duration. A drain lowers it.
	writeTimeout atomic.Int64
	counts       [closed + 1]atomic.Int64 // connections by state

	mu        sync.Mutex // guards conns; not held during I/O
	conns     map[*conn]struct{}
	roomFreed chan struct{} // capacity 1: a connection is no longer waiting or partial

	// admitting makes the goroutines that accept, one a listener, take turns: else
	// each could admit a connection in the last free place.
	admitting sync.Mutex
	// displaced counts the waiting connections that were closed for new ones with
	// less than a second between them, and displacedAt is when the last was. Both
	// are guarded by admitting.
	displaced   int
	displacedAt time.Time
}

func newConnTable(limits Limits, reject func(Rejection) []byte) *connTable {
	t := &connTable{limits: limits, reject: reject, conns: make(map[*conn]struct{}), roomFreed: make(chan struct{}, 1)}
	t.writeTimeout.Store(int64(limits.WriteTimeout))
	return t
}

// conn is a connection that a connTable counts.
type conn struct {
	net.Conn
	table *connTable
	state atomic.Int32
	// changedAt is when state changed last, and readStarted when the Read under way
	// began, both in Unix nanoseconds. readStarted is 0 while there is none.
	changedAt, readStarted atomic.Int64
	requestStarted         atomic.Bool // a byte of the next request has come
	withTLS                bool        // it is of a TLS listener
	speaksTLS              atomic.Bool // the first byte that came was that of a TLS handshake
	speaksHTTP2            atomic.Bool // a request of HTTP/2 has come
	readFailed             atomic.Bool // a Read has failed
}

// admit counts c. Beyond the limits it first closes an idle or rejected connection, or
// if there is none closes c and returns nil.
func (t *connTable) admit(c net.Conn, withTLS bool) *conn {
	t.admitting.Lock()
	defer t.admitting.Unlock()
	t.makeRoom(waiting, t.limits.MaxWaiting, t.displaceSilent)
	if t.total() >= t.limits.MaxConnections && !t.closeOldest(rejected, 0) && !t.closeOldest(idle, 0) {
		_ = c.Close() // nothing was sent on it
		return nil
	}
	own := &conn{Conn: c, table: t, withTLS: withTLS}
	own.changedAt.Store(time.Now().UnixNano())
	t.counts[waiting].Add(1)
	t.mu.Lock()
	t.conns[own] = struct{}{}
	t.mu.Unlock()
	return own
}

func (t *connTable) total() (n int) {
	for state := range closed {
		n += int(t.counts[state].Load())
	}
	return n
}

// makeRoom returns once fewer than a limit of connections are in a state, or
// displace has closed one of them. A burst of clients that do send their requests
// only has to wait until those are read.
func (t *connTable) makeRoom(state connState, limit int, displace func() bool) {
	for limit > 0 && t.counts[state].Load() >= int64(limit) && !displace() {
		timer := time.NewTimer(stalledAfter)
		select {
		case <-t.roomFreed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// displaceSilent closes the connection whose client has been silent for the longest time,
// and reports whether there was one.
func (t *connTable) displaceSilent() bool {
	if time.Since(t.displacedAt) > time.Second {
		t.displaced = 0
	}
	silent := silentAfter
	if t.displaced >= t.limits.MaxWaiting {
		silent = silentInFlood
	}
	if !t.closeOldest(waiting, silent) {
		return false
	}
	t.displaced++
	t.displacedAt = time.Now()
	return true
}

func (t *connTable) displacePartial() bool { return t.closeOldest(partial, stalledAfter) }

// closeOldest closes the connection that has been in a state for longest, but at
// least for so long, and reports whether there was one. Without a request that
// counts from when the connection began to wait for its client's bytes.
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
	_ = oldest.Close() // no request of its client's is under way
	return true
}

// idleHTTP1 returns the HTTP/1.1 connection that has been idle for longest, or nil, and
// how many are idle. HTTP/2 announces the end by a frame (RFC 9113, section 6.8).
func (t *connTable) idleHTTP1() (oldest *conn, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		if c.stateSince(idle) == 0 || c.requestStarted.Load() || c.speaksHTTP2.Load() {
			continue
		}
		if n++; oldest == nil || c.changedAt.Load() < oldest.changedAt.Load() {
			oldest = c
		}
	}
	return oldest, n
}

// lowerWriteTimeout lowers the time that a client may take to accept a write, current
// writes included.
func (t *connTable) lowerWriteTimeout(timeout time.Duration) {
	t.writeTimeout.Store(int64(timeout))
	deadline := time.Now().Add(timeout)
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
	if state == waiting || state == partial {
		return c.readStarted.Load()
	}
	return c.changedAt.Load()
}

// setState changes the state of a connection that is not closed.
func (c *conn) setState(state connState) {
	before := connState(c.state.Load())
	for ; before != state && before != closed; before = connState(c.state.Load()) {
		if !c.state.CompareAndSwap(int32(before), int32(state)) {
			continue
		}
		c.changedAt.Store(time.Now().UnixNano())
		c.table.counts[before].Add(-1)
		c.table.counts[state].Add(1)
		if before == waiting || before == partial {
			c.table.signalRoom()
		}
		return
	}
}

func (t *connTable) signalRoom() {
	select {
	case t.roomFreed <- struct{}{}:
	default:
	}
}

// markIdle notes that a response is out. It closes the oldest idle connection past
// the limit.
func (c *conn) markIdle() {
	c.requestStarted.Store(false)
	c.setState(idle)
	if t := c.table; t.limits.MaxIdle > 0 && t.counts[idle].Load() > int64(t.limits.MaxIdle) {
		t.closeOldest(idle, 0)
	}
}

// Read implements net.Conn. If a request has begun and is not complete, it waits until
// fewer than MaxPartial connections are in that state.
func (c *conn) Read(b []byte) (int, error) {
	state := connState(c.state.Load())
	if state == serving {
		return c.Conn.Read(b)
	}
	if state != partial && c.requestStarted.Load() {
		c.table.makeRoom(partial, c.table.limits.MaxPartial, c.table.displacePartial)
		c.setState(partial)
	}
	c.readStarted.Store(time.Now().UnixNano())
	n, err := c.Conn.Read(b)
	c.readStarted.Store(0)
	if n > 0 {
		if state == waiting && !c.requestStarted.Swap(true) {
			c.speaksTLS.Store(b[0] == tlsHandshake)
		}
		c.requestStarted.Store(true)
	}
	if err != nil {
		c.readFailed.Store(true)
	}
	return n, err
}

// Write implements net.Conn. A client that does not read gets the connection
// closed: no response, no metric and no shutdown waits for it for longer than the
// write timeout. If no request is in the handler, b is a rejection by net/http.
func (c *conn) Write(b []byte) (int, error) {
	if state := connState(c.state.Load()); state == waiting || state == partial || state == idle {
		if response, ok := c.replaceRejection(b); ok {
			c.setState(rejected)
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
	c.setState(closed)
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

// asConn returns c, or the connection under c if that is a TLS connection; nil if it is
// in no table.
func asConn(c net.Conn) *conn {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	counted, _ := c.(*conn)
	return counted
}
