// Package intercept serves clients that have Mimecast's address in their code, and can only
// be given an HTTP proxy and a CA file. A [Proxy] terminates their tunnels to Mimecast's API
// with certificates of an [Authority], and hands the requests inside to a handler. All other
// tunnels are copied byte for byte.
package intercept

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
)

const (
	defaultMaxTunnels       = 1024
	defaultIdleTimeout      = 5 * time.Minute
	defaultHandshakeTimeout = 10 * time.Second
	defaultDialTimeout      = 20 * time.Second
	// maxHeaderBytes bounds the headers of a request to the forward proxy itself.
	maxHeaderBytes = 16 << 10
	// drainQuiet is how long a tunnel without a request must have been silent to be
	// closed by a shutdown, and drainInterval how often that is checked.
	drainQuiet    = time.Second
	drainInterval = 50 * time.Millisecond
	// drainWriteTimeout is how long a client may take to accept a write in a terminated
	// tunnel once a shutdown has begun.
	drainWriteTimeout = 5 * time.Second
)

// Options configure a Proxy. Authority and Handler must be set.
type Options struct {
	// Authority issues the certificates for intercepted hosts, and must cover them.
	Authority *Authority
	// Handler serves the requests to intercepted hosts. Request.Host is the host's name
	// in lower case, without a port. See [BaseURL] for the scheme that the client used.
	Handler http.Handler
	// Intercepted reports whether tunnels to a host are terminated. The host is in
	// lower case and without a final dot, or is an IP address. Nil:
	// [mimecast.IsAPIHost].
	Intercepted func(host string) bool
	// Password must be in each request's Proxy-Authorization, as the password of Basic
	// with any user. Zero: none is asked for.
	Password secret.Text
	// Authorize decides in place of Password whether a request may use the proxy. It is
	// asked again for each request inside a terminated tunnel, with a copy of CONNECT
	// that has no header but Proxy-Authorization. Nil: Password decides.
	Authorize func(*http.Request) bool
	// MimecastOnly rejects tunnels to other hosts. It must be set where others than the
	// machine's users can connect.
	MimecastOnly bool
	// Dial connects to other hosts; nil: directly. See [DialThrough].
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Own returns the addresses of the process's listeners beside those that [Proxy]
	// serves at: no tunnel leads to them. It may be nil.
	Own func() []net.Addr
	// MaxTunnels bounds the terminated tunnels, and apart from them the others. Each
	// of the latter costs 16 KiB and some more. 0: 1024.
	MaxTunnels int
	// IdleTimeout is how long a tunnel may carry no byte, and how long a peer of a
	// tunnel to another host may take to accept a write. 0: 5 minutes.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take to accept one write of a terminated
	// tunnel; at most 5 s once Shutdown has begun. 0: IdleTimeout.
	WriteTimeout time.Duration
	// HandshakeTimeout is how long a client may take for the TLS handshake, for the
	// headers of its requests to the forward proxy, and between two of these. 0: 10 s.
	HandshakeTimeout time.Duration
	// DialTimeout bounds Dial. 0: 20 s.
	DialTimeout time.Duration
	// Server returns the server of the requests inside terminated tunnels, with its
	// limits, parent context and error log. Its Handler must lead to h. ConnContext,
	// ConnState, Protocols and DisableGeneralOptionsHandler are replaced, and
	// IdleTimeout and ReadHeaderTimeout if they are 0. Nil: a server with net/http's
	// other defaults.
	Server func(h http.Handler) *http.Server
	// ErrorLog gets net/http's messages from the forward proxy's own server; nil: the
	// log package's standard logger.
	ErrorLog *log.Logger
	// NewID returns an identifier for a tunnel, which its error response and Trace
	// carry. Nil: none.
	NewID func() string
	// Trace reports what happens.
	Trace Trace
}

// Trace has funcs that are called when something happens. Each may be nil.
type Trace struct {
	// TunnelDone is called once for each CONNECT and for each other request that was
	// rejected, when it has ended.
	TunnelDone func(Tunnel)
}

// Tunnel says what became of a request to the forward proxy.
type Tunnel struct {
	// ID is from Options.NewID.
	ID string
	// Peer is the client's address.
	Peer string
	// Host and Port are what it wanted to reach; empty and 0 if that is malformed.
	Host string
	Port int
	// Intercepted reports whether the host is Mimecast's.
	Intercepted bool
	// Outcome is how it ended, and Err why, if it failed. The error is for the log.
	Outcome event.InterceptOutcome
	Err     error
	// In counts the bytes from the client after CONNECT, Out those to it.
	In, Out int64
	// Duration is the time from CONNECT to the end.
	Duration time.Duration
}

// Proxy is a forward proxy. It is an [http.Handler] for HTTP/1.1 servers of the caller's, and
// can listen itself. Make it with [New].
type Proxy struct {
	o Options
	// outer serves at the listeners of Serve, inner in the terminated tunnels.
	outer, inner *http.Server
	tls          *tls.Config
	terminated   *handover
	startInner   sync.Once

	// stopping ends with the beginning of a shutdown: dials and handshakes with it.
	stopping context.Context
	stop     context.CancelFunc

	// conns counts the connections of Serve's listeners.
	conns atomic.Int64

	mu        sync.Mutex // guards the rest; not held during I/O
	tunnels   map[*tunnel]struct{}
	counts    map[bool]int // tunnels by whether they are terminated
	listeners []net.Addr
}

// New returns a proxy that does not listen yet.
func New(o Options) *Proxy {
	if o.Intercepted == nil {
		o.Intercepted = mimecast.IsAPIHost
	}
	if o.Dial == nil {
		o.Dial = DialThrough(nil, nil)
	}
	if o.Server == nil {
		o.Server = func(h http.Handler) *http.Server {
			return &http.Server{Handler: h, ErrorLog: o.ErrorLog, ReadHeaderTimeout: o.HandshakeTimeout}
		}
	}
	setDefault(&o.MaxTunnels, defaultMaxTunnels)
	setDefault(&o.IdleTimeout, defaultIdleTimeout)
	setDefault(&o.WriteTimeout, o.IdleTimeout)
	setDefault(&o.HandshakeTimeout, defaultHandshakeTimeout)
	setDefault(&o.DialTimeout, defaultDialTimeout)
	p := &Proxy{o: o, terminated: newHandover(), tunnels: make(map[*tunnel]struct{}), counts: make(map[bool]int)}
	p.stopping, p.stop = context.WithCancel(context.Background())
	p.outer = &http.Server{
		Handler: p, Protocols: protocols(false), ErrorLog: o.ErrorLog, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: o.HandshakeTimeout, IdleTimeout: o.HandshakeTimeout, DisableGeneralOptionsHandler: true,
	}
	p.inner, p.tls = p.newInner(), p.tlsConfig()
	return p
}

func setDefault[T int | time.Duration](value *T, to T) {
	if *value == 0 {
		*value = to
	}
}

// Serve serves at l until Shutdown or Close, and then returns nil. It returns an error if it
// fails before. It bounds the connections so that both kinds of tunnels can reach MaxTunnels,
// and as many connections can be without one. A server of the caller's with the Proxy as its
// handler can bound them better.
func (p *Proxy) Serve(l net.Listener) error {
	p.mu.Lock()
	p.listeners = append(p.listeners, l.Addr())
	p.mu.Unlock()
	err := p.outer.Serve(&countingListener{l, &p.conns, int64(3 * p.o.MaxTunnels)})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops listening, opens no more tunnels, and waits until every request inside a
// terminated tunnel has ended and every other tunnel is silent for a second. If ctx ends
// first, it cuts the rest and returns the context's error.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.stop()
	for _, t := range p.open() {
		if t.open.Load() && t.report.Intercepted {
			_ = t.limitWrite(time.Now()) // one that is closed needs none
		}
	}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = errors.Join(p.outer.Shutdown(ctx), p.inner.Shutdown(ctx))
	}()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for p.closeQuiet() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = p.Close() // the listeners are closed already
			<-done
			return ctx.Err()
		}
	}
	<-done
	return err
}

// Close closes the listeners and every tunnel at once.
func (p *Proxy) Close() error {
	p.stop()
	err := errors.Join(p.outer.Close(), p.inner.Close(), p.terminated.Close())
	for _, t := range p.open() {
		t.cut()
	}
	return err
}

// closeQuiet closes the tunnels on which nothing is under way, and returns how many are open.
func (p *Proxy) closeQuiet() int {
	open := p.open()
	for _, t := range open {
		if !t.serving.Load() && t.quiet() >= drainQuiet {
			t.cut()
		}
	}
	return len(open)
}

// Busy returns how many tunnels to other hosts are not silent: those that Shutdown waits for.
func (p *Proxy) Busy() (n int) {
	for _, t := range p.open() {
		if !t.report.Intercepted && t.quiet() < drainQuiet {
			n++
		}
	}
	return n
}

func (p *Proxy) open() []*tunnel {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := make([]*tunnel, 0, len(p.tunnels))
	for t := range p.tunnels {
		open = append(open, t)
	}
	return open
}

// countingListener closes connections beyond a limit.
type countingListener struct {
	net.Listener
	conns *atomic.Int64
	limit int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.Add(1) <= l.limit {
			return &countedConn{Conn: c, conns: l.conns}, nil
		}
		l.conns.Add(-1)
		_ = c.Close() // nothing was sent on it
	}
}

type countedConn struct {
	net.Conn
	conns *atomic.Int64
	once  sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.conns.Add(-1) })
	return c.Conn.Close()
}

// CloseWrite closes the sending half.
func (c *countedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
