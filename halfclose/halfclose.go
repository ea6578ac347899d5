// Package halfclose serves clients that close their half of the connection as
// soon as they have sent their request, and then wait for the answer (RFC 9112,
// section 9.6, lets them).
//
// net/http takes the end of what a client sends for a client that went away. On
// the wire the two look the same until something is written: then only one of
// them resets the connection. So where the answer takes a while, an interim
// 100 Continue is written, which every client of HTTP/1.1 has to skip, and a
// client that is gone is found out by that.
package halfclose

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// asked is when a client is asked whether it is still there: after a while, in
// which most answers have come, and then until what was written before has had
// the time to be answered with a reset.
var asked = []time.Duration{50 * time.Millisecond, 5 * time.Millisecond, 50 * time.Millisecond, time.Second}

// silence is how long an answer that has begun may pause when its client has
// closed its half. Nothing can be asked amid an answer, and one that is gone
// must not hold on to it for ever.
var silence = 10 * time.Second

// Listen returns l with connections that know of half-closing. [Context] and
// [Wrap] must be in use with it.
func Listen(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

type key struct{}

// Context is an [http.Server.ConnContext].
func Context(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, key{}, c)
}

// Wrap tells the connection of each request that it begins.
func Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(key{}).(*conn); ok {
			c.begin(r.ProtoAtLeast(1, 1))
		}
		next.ServeHTTP(w, r)
	})
}

// conn is a connection as the server sees it.
type conn struct {
	net.Conn

	mu     sync.Mutex
	knows  bool          // the client knows interim answers
	begun  bool          // the answer has
	writes int           // how many there were
	awake  bool          // the read deadline is in the past
	wake   chan struct{} // closed once it is; nil where nobody waits for that
}

func (c *conn) begin(http11 bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.knows, c.begun = http11, false
}

// Write implements net.Conn. net/http writes an interim answer by itself, after
// which another may still come.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.begun = c.begun || !isInterim(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func isInterim(b []byte) bool {
	return bytes.HasPrefix(b, []byte("HTTP/1.1 1")) && bytes.HasSuffix(b, []byte("\r\n\r\n"))
}

// ask writes an interim answer, if that is possible now. The error is that of a
// client that has reset the connection since it was asked before. The lock
// keeps what is written out of the answer.
func (c *conn) ask() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.knows || c.begun {
		return nil
	}
	_, err := io.WriteString(c.Conn, "HTTP/1.1 100 Continue\r\n\r\n")
	return err
}

// Read implements net.Conn. While a request is being answered net/http reads a
// single byte, to learn of the client's end; nothing else does so. Such a read
// ends as if nothing had come, unless the client turns out to be gone.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if len(b) != 1 || !errors.Is(err, io.EOF) {
		return n, err
	}
	if err := c.suspect(); err != nil {
		return 0, err
	}
	return 0, os.ErrDeadlineExceeded
}

// suspect waits until the server has no more interest in the client's end, and
// returns an error if the client is gone before that.
func (c *conn) suspect() error {
	wake := c.waking()
	for _, d := range asked {
		if !pause(d, wake) {
			return nil
		}
		if err := c.ask(); err != nil {
			return err
		}
	}
	for {
		before := c.progress()
		if !pause(silence, wake) {
			return nil
		}
		if err := c.ask(); err != nil {
			return err
		}
		if before >= 0 && c.progress() == before {
			return io.EOF
		}
	}
}

// waking returns what is closed as soon as the server has no more interest.
func (c *conn) waking() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wake == nil {
		c.wake = make(chan struct{})
	}
	wake := c.wake
	if c.awake {
		c.rise()
	}
	return wake
}

// rise wakes whoever waits, with mu held.
func (c *conn) rise() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// progress returns how much was written of an answer that has begun, in writes;
// -1 where none has.
func (c *conn) progress() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		return -1
	}
	return c.writes
}

// pause reports whether nothing woke it.
func pause(d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		return false
	}
}

// SetReadDeadline implements net.Conn. A deadline in the past is how net/http
// ends a read.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.rouse(!t.IsZero() && !t.After(time.Now()))
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.rouse(!t.IsZero() && !t.After(time.Now()))
	return c.Conn.SetDeadline(t)
}

func (c *conn) rouse(awake bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awake = awake; awake {
		c.rise()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.rouse(true)
	return c.Conn.Close()
}

// CloseWrite is what net/http closes by where the client is still sending.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
