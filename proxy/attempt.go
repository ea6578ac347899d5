package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// phase is how far an attempt has come. Whether a request may be sent again
// depends on it.
type phase int32

const (
	connecting phase = iota // no connection yet
	handshake               // one was dialed; with TLS, and a forward proxy, there is more to do
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

// isConnectionLost reports whether the connection ended after the request was
// written: no timeout, and no error of the one HTTP/2 stream alone.
func (e *attemptError) isConnectionLost() bool {
	_, ofStream := errors.AsType[http2.StreamError](e.err)
	return e.phase == written && !ofStream && !isTimeout(e.err)
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

var (
	// errTokenExpired ends an attempt whose token expired before there was a
	// connection to send it on.
	errTokenExpired = errors.New("the token expired before it was sent")
	// errTurnedAway ends a request that found only connections that Mimecast
	// closed before it took a request.
	errTurnedAway = errors.New("each connection was closed before a request was taken")
)

// tokenKey is the context's key for the token that a request bears: it may not
// be sent any more once that has expired.
type tokenKey struct{}

const (
	// maxVain bounds the new connections that one request is sent on in vain.
	maxVain = 4
	// maxTries bounds all that it is sent on, since each of them may be about to
	// be closed.
	maxTries = 20
	// maxDialed bounds the connections that are made for one request: another
	// one may have taken each of them.
	maxDialed = 10
)

// attempt is a request on its way to a response. Its hooks are called on several
// goroutines.
type attempt struct {
	dials  *dialGate
	cancel context.CancelCauseFunc
	body   *replayBody // nil where no body streams
	expiry time.Time   // of its token; zero where there is none

	phase  atomic.Int32
	dialed atomic.Int32                 // connections made for it
	conn   atomic.Pointer[upstreamConn] // the last that it got

	tries atomic.Int32 // connections that it got
	vain  atomic.Int32 // new ones that brought no response

	failures int           // guarded by dials.mu: those of dials when the wait began
	served   chan struct{} // guarded by dials.mu: closed when the wait ends; nil where nobody looks
}

// attempt sends req once, but where HTTP/2 says that it was not begun.
func (c *Connections) attempt(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	a := &attempt{dials: c.dials, cancel: cancel}
	if s, ok := req.Body.(*stream); ok && !s.body.whole() {
		a.body = s.body
	}
	if token, ok := ctx.Value(tokenKey{}).(Token); ok {
		if a.expiry = token.Expiry(); !time.Now().Before(a.expiry) {
			closeBody(req)
			cancel(errTokenExpired)
			return nil, &attemptError{connecting, errTokenExpired}
		}
	}
	ctx = context.WithValue(httptrace.WithClientTrace(ctx, a.trace()), attemptKey{}, a)
	res, err := c.current().RoundTrip(req.WithContext(ctx))
	c.dials.leave(a)
	if err == nil {
		return res, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(err)
	a.failed(req.Context(), err)
	return nil, &attemptError{phase(a.phase.Load()), err}
}

// attemptKey is the context's key for the attempt that a connection is made for.
type attemptKey struct{}

func (a *attempt) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:      func(string) { a.wait() },
		GotConn:      a.got,
		WroteHeaders: func() { a.phase.Store(int32(written)) },
		// Before the peer's next word, which may be that it begins no other.
		GotFirstResponseByte: a.succeeded,
	}
}

// wait is called when the attempt begins to wait for a connection: the first
// one, or another since the peer says that it did not begin the request.
func (a *attempt) wait() {
	if c := a.conn.Swap(nil); c != nil && !c.answered.Load() {
		a.vain.Add(1)
		if c.failed.CompareAndSwap(false, true) {
			a.dials.failed(errTurnedAway)
		}
	}
	if a.vain.Load() >= maxVain || a.tries.Load() >= maxTries {
		a.cancel(errTurnedAway)
	}
	a.phase.Store(int32(connecting))
	a.dials.enter(a)
}

func (a *attempt) got(info httptrace.GotConnInfo) {
	a.dials.leave(a)
	a.tries.Add(1)
	a.phase.Store(int32(connected))
	c := findConn(info.Conn)
	a.conn.Store(c)
	if c != nil && c.used.CompareAndSwap(false, true) {
		a.dials.connected()
	}
	if a.body != nil && c != nil {
		a.body.endWith(c.ended)
	}
}

// succeeded notes that the connection has brought a response.
func (a *attempt) succeeded() {
	if c := a.conn.Load(); c != nil && c.answered.CompareAndSwap(false, true) {
		a.dials.succeeded()
	}
}

// failed notes that no connection came about, or a new one that brought no
// response. A request that has ended, or waits for its response for too long,
// says nothing about connections.
func (a *attempt) failed(ctx context.Context, err error) {
	c := a.conn.Load()
	late := phase(a.phase.Load()) == written && isTimeout(err)
	if ctx.Err() != nil || late || errors.Is(err, errTokenExpired) {
		return
	}
	if c != nil && (c.answered.Load() || !c.failed.CompareAndSwap(false, true)) {
		return
	}
	a.dials.failed(err)
}
