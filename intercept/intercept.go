// Package intercept is a forward proxy for clients with hard-coded Mimecast addresses, which
// accept only an HTTP proxy and a CA file. A [Proxy] terminates tunnels to Mimecast's API with
// certificates of an [Authority], and passes the requests inside them to a handler. It relays
// all other tunnels byte for byte.
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
	// maxHeaderBytes bounds the headers of a request to the forward proxy itself, in bytes.
	maxHeaderBytes = 16 << 10
	// drainQuiet is how long a tunnel without a request must be silent before a shutdown
	// closes it. drainInterval is the time between two checks of that.
	drainQuiet    = time.Second
	drainInterval = 50 * time.Millisecond
	// drainWriteTimeout is how long a client may take to accept a write in a terminated
	// tunnel during a shutdown.
	drainWriteTimeout = 5 * time.Second
)

// Options configure a Proxy. Authority and Handler must be set.
type Options struct {
	// Authority issues the certificates for intercepted hosts, and must cover them.
	Authority *Authority
	// Handler serves the requests to intercepted hosts. Request.Host is the host's name
	// in lower case, without a port. See [BaseURL] for the scheme that the client used.
	Handler http.Handler
	// Intercepted reports whether tunnels to a host are terminated. The host is an IP
	// address, or a host name in lower case and without a final dot. Nil:
	// [mimecast.IsAPIHost].
	Intercepted func(host string) bool
	// Password is what each request's Proxy-Authorization must contain, in the Basic scheme
	// with any user name. Zero: no password is required.
	Password secret.Text
	// Authorize decides, instead of Password, whether a request may use the proxy. It is
	// called again for each request inside a terminated tunnel. It then gets a copy of the
	// CONNECT request, with no header except Proxy-Authorization. Nil: Password decides.
	Authorize func(*http.Request) bool
	// MimecastOnly rejects tunnels to hosts that are not intercepted. It must be set if
	// anyone except this machine's users can connect.
	MimecastOnly bool
	// Dial connects to a host that is not intercepted. Nil: it connects directly. See
	// [DialThrough].
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Own returns the addresses of the process's other listeners. Tunnels to them are
	// rejected, as to the proxy's own. Nil: there are none.
	Own func() []net.Addr
	// MaxTunnels is the limit for terminated tunnels, and separately for other tunnels.
	// Each of the others uses a little over 16 KiB. 0: 1024.
	MaxTunnels int
	// IdleTimeout is how long a tunnel may be silent. In a tunnel to another host, it is
	// also how long a peer may take to accept a write. 0: 5 minutes.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take to accept one write of a terminated
	// tunnel. After Shutdown begins, it is at most 5 s. 0: IdleTimeout.
	WriteTimeout time.Duration
	// HandshakeTimeout is how long a client may take for the TLS handshake. For requests to
	// the forward proxy itself, it bounds the headers and the time between two of them.
	// 0: 10 s.
	HandshakeTimeout time.Duration
	// DialTimeout is how long Dial may take. 0: 20 s.
	DialTimeout time.Duration
	// Server returns the server for requests inside terminated tunnels, with its limits,
	// parent context and error log. Its Handler must call h. The Proxy replaces ConnContext,
	// ConnState, Protocols and DisableGeneralOptionsHandler, and sets IdleTimeout and
	// ReadHeaderTimeout if they are 0. Nil: a server with net/http's other defaults.
	Server func(h http.Handler) *http.Server
	// ErrorLog gets net/http's messages about connections to the forward proxy itself. Nil:
	// the log package's standard logger gets them.
	ErrorLog *log.Logger
	// NewID returns an identifier for a tunnel's error response and Trace. Nil: there is
	// none.
	NewID func() string
	// Trace has the callbacks for events. The zero value reports nothing.
	Trace Trace
}

// Trace has callbacks for events. Each may be nil.
type Trace struct {
	// TunnelDone is called once for each CONNECT when its tunnel has ended, and for each
	// other request that was rejected.
	TunnelDone func(Tunnel)
}

// Tunnel is the result of a request to the forward proxy.
type Tunnel struct {
	// ID is from Options.NewID; empty without it.
	ID string
	// Peer is the client's address.
	Peer string
	// Host and Port are the target; empty and 0 if the request is malformed or not
	// authorized.
	Host string
	Port int
	// Intercepted is the result of Options.Intercepted for the host.
	Intercepted bool
	// Outcome is how the tunnel ended. Err is the cause of a failure, for the log; nil
	// otherwise.
	Outcome event.InterceptOutcome
	Err     error
	// In counts the bytes from the client after CONNECT, Out the bytes to the client after
	// the 200 response.
	In, Out int64
	// Duration is the time from CONNECT to the end of the tunnel.
	Duration time.Duration
}

// Proxy is a forward proxy. It is an [http.Handler] for the caller's HTTP/1.1 server, or serves
// a listener with [Proxy.Serve]. Use [New] to create one; the zero value is not usable.
type Proxy struct {
	o Options
	// outer serves the listeners of Serve, inner the terminated tunnels.
	outer, inner *http.Server
	tls          *tls.Config
	terminated   *handover
	startInner   sync.Once

	// stopping is canceled when a shutdown begins, which ends dials and handshakes.
	stopping context.Context
	stop     context.CancelFunc

	// conns counts the connections of Serve's listeners.
	conns atomic.Int64

	mu        sync.Mutex // guards the rest; not held during I/O
	tunnels   map[*tunnel]struct{}
	counts    map[bool]int // of tunnels, by whether they are terminated
	listeners []net.Addr
}

// New returns a proxy that does not listen yet. o.Authority and o.Handler must be set.
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

// Serve serves l until Shutdown or Close, and then returns nil. It returns an error if the
// listener fails earlier.
//
// Serve keeps at most 3 * MaxTunnels connections: MaxTunnels for each kind of tunnel, and as
// many without a tunnel. For other limits, use the Proxy as the handler of your own server.
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

// Shutdown stops listening and opens no more tunnels. It waits until all requests inside
// terminated tunnels have ended and all other tunnels have been silent for 1 s. If ctx ends
// first, Shutdown cuts the remaining tunnels and returns the context's error.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.stop()
	for _, t := range p.open() {
		if t.open.Load() && t.report.Intercepted {
			_ = t.limitWrite(time.Now()) // fails only if the tunnel is closed
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

// closeQuiet closes the silent tunnels without a request. It returns how many tunnels were
// open before.
func (p *Proxy) closeQuiet() int {
	open := p.open()
	for _, t := range open {
		if !t.serving.Load() && t.quiet() >= drainQuiet {
			t.cut()
		}
	}
	return len(open)
}

// Busy returns the number of tunnels to other hosts that carried a byte within the last second.
// Shutdown waits for these.
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

// countingListener closes new connections beyond a limit.
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

// CloseWrite closes the sending half of the connection.
func (c *countedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
