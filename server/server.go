// Package server listens and serves HTTP. A [Server] bounds the connections, headers and
// writes that a client can occupy, and drains at shutdown without waiting for clients
// that neither send nor read. [Listen] opens TCP addresses and unix sockets.
// [RunSupervised] connects the process to systemd or to the Windows service manager.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// readHeaderTimeout is how long a client may take to send its request headers.
	// Bodies have no such bound.
	readHeaderTimeout = 10 * time.Second
	// keepAlive is how long an idle connection is kept: longer than most clients keep
	// theirs, so that the client closes it.
	keepAlive = 2 * time.Minute
	// drainWriteTimeout is how long a client may take to accept a write once a
	// shutdown has begun, drainHeaderTimeout how long to send its headers, and
	// drainInterval how often that is checked.
	drainWriteTimeout  = 5 * time.Second
	drainHeaderTimeout = time.Second
	drainInterval      = 100 * time.Millisecond
	// maxStreams is how many requests a client may send at once on one HTTP/2
	// connection, and maxStreamWindow how many bytes of their bodies before the handler
	// reads them: what a connection of HTTP/1.1 holds.
	maxStreams      = 64
	maxStreamWindow = 64 << 10
	// acceptReportInterval is the least time between two reports of a failed accept.
	acceptReportInterval = 10 * time.Second
)

// Limits bound what clients can occupy. 0: no limit.
type Limits struct {
	// MaxHeaderBytes bounds the request line and headers of a request, in bytes.
	MaxHeaderBytes int
	// MaxConnections bounds all connections. One beyond it closes the oldest that
	// was rejected or is idle, or is closed itself.
	MaxConnections int
	// MaxWaiting bounds the new connections on which no byte has come, and
	// MaxPartial all those on which a request has begun and is not whole. One
	// beyond them closes the one that has waited longest for its client.
	MaxWaiting, MaxPartial int
	// MaxIdle bounds the connections that are kept alive after a response. One
	// beyond it closes the oldest.
	MaxIdle int
	// WriteTimeout is how long a client may take to accept one write, which is at
	// most some 64 KiB.
	WriteTimeout time.Duration
}

// Options configure a Server. Handler and Context must be set.
type Options struct {
	// Handler serves the requests that net/http does not reject.
	Handler http.Handler
	// Context is the parent of every request's.
	Context context.Context
	// Limits bound what clients can occupy.
	Limits Limits
	// TLS is for ServeTLS, which sets its NextProtos; nil: it is not used.
	TLS *tls.Config
	// ErrorLog gets net/http's messages; nil: the log package's standard logger.
	ErrorLog *log.Logger
	// Reject returns the complete HTTP/1.1 response to a request that net/http rejects,
	// which then ends the connection. If it is nil or returns nil, net/http's is sent.
	Reject func(Rejection) []byte
	// AcceptFailed gets the error if connections cannot be accepted, at most every 10 s:
	// net/http retries silently, and clients wait. It may be nil.
	AcceptFailed func(error)
}

// Server is an [http.Server] whose connections share its limits, over all its listeners.
// Make it with [New].
type Server struct {
	http         http.Server
	conns        *connTable
	acceptFailed func(error)
	closing      atomic.Bool
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Limits.MaxConnections == 0 {
		o.Limits.MaxConnections = int(^uint(0) >> 1)
	}
	s := &Server{conns: newConnTable(o.Limits, o.Reject), acceptFailed: o.AcceptFailed}
	s.http = http.Server{
		Handler:     s.markServing(BoundWrites(o.Limits.WriteTimeout, o.Handler)),
		BaseContext: func(net.Listener) context.Context { return o.Context },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, asConn(c))
		},
		ConnState:         trackIdle,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       keepAlive,
		MaxHeaderBytes:    o.Limits.MaxHeaderBytes,
		ErrorLog:          o.ErrorLog,
		// OPTIONS * is for the guard to reject.
		DisableGeneralOptionsHandler: true,
		TLSConfig:                    withProtocols(o.TLS),
		HTTP2:                        HTTP2Config(),
	}
	return s
}

// HTTP2Config returns the bounds of a client's HTTP/2 connection.
func HTTP2Config() *http.HTTP2Config {
	return &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 4 * maxStreamWindow, MaxReceiveBufferPerStream: maxStreamWindow}
}

// withProtocols offers HTTP/2. The first Serve or ServeTLS decides by it whether net/http
// sets HTTP/2 up, whichever of them is first.
func withProtocols(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}

type connKey struct{}

func trackIdle(c net.Conn, state http.ConnState) {
	if own := asConn(c); own != nil && state == http.StateIdle {
		own.markIdle()
	}
}

// markServing marks a connection whose request has reached the handler. During a drain it
// asks the client to close the connection, so that no request is sent on one that is
// being closed.
func (s *Server) markServing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own, _ := r.Context().Value(connKey{}).(*conn); own != nil {
			own.setState(serving)
			own.speaksHTTP2.Store(r.ProtoMajor == 2)
		}
		if s.closing.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves at l until Shutdown or Close, and then returns nil. It returns an error if
// it fails before. It may be called several times at once, with different listeners.
func (s *Server) Serve(l net.Listener) error {
	return serveError(s.http.Serve(s.counted(l, false)))
}

// ServeTLS is Serve with TLS, for HTTP/1.1 and HTTP/2.
func (s *Server) ServeTLS(l net.Listener) error {
	return serveError(s.http.ServeTLS(s.counted(l, true), "", ""))
}

func (s *Server) counted(l net.Listener, withTLS bool) net.Listener {
	return &listener{Listener: l, withTLS: withTLS, conns: s.conns, acceptFailed: s.acceptFailed}
}

func serveError(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// CloseConnections makes every further response the last one on its connection
// (Connection: close, RFC 9112, section 9.6).
func (s *Server) CloseConnections() { s.closing.Store(true) }

// Shutdown stops listening and waits until every request has ended, or ctx ends, whose
// error it returns. It does not wait for clients that send no request or read no
// response.
func (s *Server) Shutdown(ctx context.Context) error {
	s.CloseConnections()
	s.conns.lowerWriteTimeout(drainWriteTimeout)
	done := make(chan error, 1)
	go func() { done <- s.http.Shutdown(ctx) }()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			for s.conns.closeOldest(waiting, drainHeaderTimeout) || s.conns.closeOldest(partial, drainHeaderTimeout) {
				continue
			}
		}
	}
}

// Close closes the listeners and every connection at once.
func (s *Server) Close() error { return s.http.Close() }

// listener hands out connections that are counted.
type listener struct {
	net.Listener
	withTLS      bool
	conns        *connTable
	acceptFailed func(error)
	lastFailed   time.Time // when acceptFailed was called
}

// Accept is called by one goroutine alone.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if l.acceptFailed != nil && !errors.Is(err, net.ErrClosed) && time.Since(l.lastFailed) >= acceptReportInterval {
				l.lastFailed = time.Now()
				l.acceptFailed(err)
			}
			return nil, err
		}
		if own := l.conns.admit(c, l.withTLS); own != nil {
			return own, nil
		}
	}
}
