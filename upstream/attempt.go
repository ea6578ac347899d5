package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"mimecast-proxy/resend"

	"golang.org/x/net/http2"

	"mimecast-proxy/account"
)

// phase is how far an attempt has come. Whether a request may be sent again
// depends on it.
type phase int32

const (
	connecting phase = iota // no connection yet
	handshake               // one was dialed; with TLS, and a corporate proxy, there is more to do
	connected               // a connection, and no complete header written on it
	written                 // the header was written: Mimecast may have the request
)

// attemptError is why an attempt failed, and how far it had come.
type attemptError struct {
	phase phase
	err   error
}

func (e *attemptError) Error() string { return e.err.Error() }

func (e *attemptError) Unwrap() error { return e.err }

// isConnectionLost reports whether the connection ended, or brought nothing that can
// be used, after the request was written: no timeout, and no error of the one HTTP/2
// stream alone.
func (e *attemptError) isConnectionLost() bool {
	_, ofStream := errors.AsType[http2.StreamError](e.err)
	return e.phase == written && !ofStream && !isTimeout(e.err)
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// errConnectionsRejected ends a request that found only connections that Mimecast closed
// before it took a request.
var errConnectionsRejected = errors.New("each connection was closed before a request was taken")

const (
	// maxRejectedConns bounds the new connections that one request is sent on in vain.
	maxRejectedConns = 4
	// maxConns bounds all that it is sent on, since each of them may be about to
	// be closed.
	maxConns = 20
	// maxUnused bounds the connections that are made for one request and used by none. In a
	// burst, others may take any number of its connections.
	maxUnused = 10
)

// errCut ends a request whose token expired while it was being written.
var errCut = errors.New("the request was cut while it was being sent")

// ConnectionBody is a request body that ends together with the connection that it is
// sent on: over HTTP/1.1 net/http waits for the Read of a body before it reports that
// the connection has ended.
type ConnectionBody interface {
	// EndWith is called with the connection's context, once for each connection
	// that the request gets.
	EndWith(connection context.Context)
}

// attempt is a request on its way to a response. Its hooks are called on several
// goroutines.
type attempt struct {
	dials  *dialGate
	cancel context.CancelCauseFunc
	body   ConnectionBody // nil if the body is not a ConnectionBody
	expiry time.Time      // of its token; zero if there is none

	phase  atomic.Int32
	unused atomic.Int32                // connections made for it, or being made, that no request got
	conn   atomic.Pointer[trackedConn] // the last that it got

	conns         atomic.Int32 // connections that it got
	rejectedConns atomic.Int32 // new ones that brought no response

	gaveUp   atomic.Bool   // canceled by dials, since connections fail
	failures int           // guarded by dials.mu: those of dials when the wait began
	served   chan struct{} // guarded by dials.mu: closed when the wait ends; nil if nobody looks
}

// attempt sends req once; net/http resends it if HTTP/2 says that it was not begun.
func (c *Connections) attempt(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	a := &attempt{dials: c.dials, cancel: cancel, expiry: account.Expiry(ctx)}
	a.body, _ = req.Body.(ConnectionBody)
	if !a.expiry.IsZero() && !time.Now().Before(a.expiry) {
		resend.CloseBody(req)
		cancel(account.ErrTokenExpired)
		return nil, &attemptError{connecting, account.ErrTokenExpired}
	}
	ctx = context.WithValue(httptrace.WithClientTrace(ctx, a.trace()), attemptKey{}, a)
	res, err := c.current().RoundTrip(req.WithContext(ctx))
	c.dials.stopWaiting(a)
	if err == nil {
		return res, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	a.failed(req.Context(), err)
	reached := phase(a.phase.Load())
	if reached == written && errors.Is(err, account.ErrTokenExpired) { // the header went out just before
		err = errCut
	}
	return nil, &attemptError{reached, err}
}

// attemptKey is the context's key for the attempt that a connection is made for.
type attemptKey struct{}

func (a *attempt) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:      func(string) { a.awaitConn() },
		GotConn:      a.gotConn,
		WroteHeaders: func() { a.phase.Store(int32(written)) },
		// Before the peer's next word, which may be that it begins no other.
		GotFirstResponseByte: a.succeeded,
	}
}

// awaitConn is called when the attempt begins to wait for a connection: the first
// one, or another since the peer says that it did not begin the request.
func (a *attempt) awaitConn() {
	if c := a.conn.Swap(nil); c != nil && !c.answered.Load() {
		a.rejectedConns.Add(1)
		if c.failed.CompareAndSwap(false, true) {
			a.dials.failed(errConnectionsRejected)
		}
	}
	if a.rejectedConns.Load() >= maxRejectedConns || a.conns.Load() >= maxConns {
		a.cancel(errConnectionsRejected)
	}
	a.phase.Store(int32(connecting))
	a.dials.startWaiting(a)
}

func (a *attempt) gotConn(info httptrace.GotConnInfo) {
	a.dials.stopWaiting(a)
	a.conns.Add(1)
	a.phase.Store(int32(connected))
	c := findConn(info.Conn)
	a.conn.Store(c)
	if c == nil {
		return
	}
	if by := c.madeFor.Swap(nil); by != nil {
		by.unused.Add(-1)
		a.dials.connected()
	}
	if a.body != nil {
		a.body.EndWith(c.ended)
	}
}

// succeeded notes that the connection has brought a response.
func (a *attempt) succeeded() {
	if c := a.conn.Load(); c != nil && c.answered.CompareAndSwap(false, true) {
		a.dials.succeeded()
	}
}

// failed notes that no connection was made, or that a new one brought no response. A
// request that has ended, or waits too long for its response, does not show that
// connections fail.
func (a *attempt) failed(ctx context.Context, err error) {
	c := a.conn.Load()
	late := phase(a.phase.Load()) == written && isTimeout(err)
	if ctx.Err() != nil || late || a.gaveUp.Load() || errors.Is(err, account.ErrTokenExpired) {
		return
	}
	if c != nil && (c.answered.Load() || !c.failed.CompareAndSwap(false, true)) {
		return
	}
	a.dials.failed(err)
}
