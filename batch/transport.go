package batch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/resend"
)

const (
	// stallTimeout is how long the host of a file may send nothing of it.
	stallTimeout = 2 * time.Minute
	// maxResponseHeader bounds the headers of a response, in bytes.
	maxResponseHeader = 64 << 10
	// bufferSize is how much of a file is read at a time.
	bufferSize = 32 << 10
	// maxUnusedHosts is how many hosts may be remembered without a download.
	maxUnusedHosts = 64
)

// TransportOptions say how to reach the hosts of batch files. The zero value is usable:
// the system's roots and resolver, no corporate proxy and no bounds.
type TransportOptions struct {
	// Roots are the authorities to trust; nil means the system's.
	Roots *x509.CertPool
	// Proxy returns the corporate proxy on the way to a URL, or nil; nil means that
	// there is none. Such a proxy resolves the names itself, so their addresses are not
	// checked.
	Proxy func(*url.URL) (*url.URL, error)
	// DialTimeout bounds the TCP and then the TLS handshake, each; ResponseTimeout the
	// wait for response headers; IdleTimeout the life of an unused connection. 0 means
	// no bound.
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
	// MaxConnections bounds the downloads from a host at a time, each of which has a
	// connection. As soon as several accounts are in use, none has more than half. Further
	// ones wait for at most DialTimeout. 0 means no bound.
	MaxConnections int
	// AllowLoopback reports whether http, any port and IP addresses are acceptable for
	// files on this machine, for the account in a context. Only a simulator has such files.
	// nil means never.
	AllowLoopback func(context.Context) bool
	// Resolver looks names up; nil means net.DefaultResolver.
	Resolver *net.Resolver
}

// Transport is an http.RoundTripper that fetches files from the addresses that Mimecast
// issues, on other hosts than the API's. Such an address is data from outside, so that
// it must not lead into a private network: only https, port 443, and names that resolve
// to public addresses are acceptable. The address that a connection is made to is the
// one that is checked, so that a name which changes gains nothing.
//
// It follows no redirect, and a file of which nothing arrives for two minutes ends with
// an error. Make it with [NewTransport].
type Transport struct {
	options  TransportOptions
	port     uint16
	forward  func(*url.URL) (*url.URL, error)
	forRoots atomic.Pointer[transports]

	mu    sync.Mutex
	hosts map[string]*account.Places // guarded by mu: the downloads from each
}

// transports are one for each way. Connections of local may lead to this machine, and
// those to a corporate proxy to any address. No request gets one of another way.
type transports struct{ direct, local, proxied *http.Transport }

// NewTransport returns a transport.
func NewTransport(o TransportOptions) *Transport {
	t := &Transport{options: o, port: 443, forward: o.Proxy, hosts: map[string]*account.Places{}}
	if t.forward == nil {
		t.forward = func(*url.URL) (*url.URL, error) { return nil, nil }
	}
	if t.options.AllowLoopback == nil {
		t.options.AllowLoopback = func(context.Context) bool { return false }
	}
	t.Trust(o.Roots)
	return t
}

// Trust makes new connections verify by other roots; nil means the system's.
func (t *Transport) Trust(roots *x509.CertPool) {
	dialer := &net.Dialer{Timeout: t.options.DialTimeout, Resolver: t.options.Resolver}
	direct, local := *dialer, *dialer
	direct.Control, local.Control = t.checkAddress(false), t.checkAddress(true)
	next := &transports{t.newTransport(roots, &direct), t.newTransport(roots, &local), t.newTransport(roots, dialer)}
	next.proxied.Proxy = func(r *http.Request) (*url.URL, error) { return t.forward(r.URL) }
	if before := t.forRoots.Swap(next); before != nil {
		before.closeIdleConnections()
	}
}

// newTransport returns one that speaks HTTP/1.1. Over HTTP/2 each file that a client
// reads slowly would take a receive window of memory.
func (t *Transport) newTransport(roots *x509.CertPool, dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    t.options.DialTimeout,
		ResponseHeaderTimeout:  t.options.ResponseTimeout,
		IdleConnTimeout:        t.options.IdleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		ReadBufferSize:         bufferSize,
		DisableCompression:     true,
	}
}

// CloseIdleConnections closes the connections that no download uses.
func (t *Transport) CloseIdleConnections() { t.forRoots.Load().closeIdleConnections() }

func (ts *transports) closeIdleConnections() {
	for _, one := range []*http.Transport{ts.direct, ts.local, ts.proxied} {
		one.CloseIdleConnections()
	}
}

var (
	errURL       = errors.New("the URL of the batch file is not https on port 443 of a public host name")
	errProxyURL  = errors.New("the URL of the corporate proxy cannot be used")
	errNotPublic = errors.New("the address is not public")
	errStalled   = errors.New("no byte of the batch file arrived for " + stallTimeout.String())
)

// RoundTrip implements http.RoundTripper. An error is a [*problem.Problem] without the
// query of the URL, but for a request whose context has ended.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	way, err := t.transportFor(r.Context(), r.URL)
	if err != nil {
		resend.CloseBody(r)
		return nil, explain(err)
	}
	release, err := t.enter(r)
	if err != nil {
		resend.CloseBody(r)
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	res, err := way.RoundTrip(r.WithContext(ctx))
	if err != nil {
		release()
		cancel(nil)
		if r.Context().Err() != nil {
			return nil, err
		}
		return nil, explain(err)
	}
	res.Request = r
	res.Body = &impatientBody{ReadCloser: res.Body, ctx: ctx, cancel: cancel, release: release}
	return res, nil
}

// enter waits until a download from a host may begin. Call the func that it returns when
// the download has ended.
func (t *Transport) enter(r *http.Request) (release func(), err error) {
	a, places := account.Of(r.Context()), t.places(r.URL.Host)
	ctx := r.Context()
	if t.options.DialTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.options.DialTimeout)
		defer cancel()
	}
	err = places.Take(ctx, a)
	switch {
	case err == nil:
		return sync.OnceFunc(func() { places.Release(a) }), nil
	case r.Context().Err() != nil:
		return nil, r.Context().Err()
	}
	p := problem.New(event.TooBusy, "Downloads from the batch file's host have reached their limit. Retry later, or raise PROXY_MAX_CONNECTIONS.")
	p.RetryAfter, p.Limit = busyRetryAfter, "PROXY_MAX_CONNECTIONS"
	return nil, p.Because(err)
}

// places are those of the downloads from a host.
func (t *Transport) places(host string) *account.Places {
	t.mu.Lock()
	defer t.mu.Unlock()
	places, ok := t.hosts[host]
	if !ok {
		if len(t.hosts) >= maxUnusedHosts {
			maps.DeleteFunc(t.hosts, func(_ string, p *account.Places) bool { return p.Unused() })
		}
		places = account.NewPlaces(t.options.MaxConnections)
		t.hosts[host] = places
	}
	return places
}

func (t *Transport) transportFor(ctx context.Context, u *url.URL) (*http.Transport, error) {
	loopback := t.options.AllowLoopback(ctx)
	if !accepts(u, loopback) {
		return nil, errURL
	}
	forward, err := t.forward(u)
	now := t.forRoots.Load()
	switch {
	case err != nil:
		return nil, errProxyURL // the error may show a password
	case forward != nil:
		return now.proxied, nil
	case loopback:
		return now.local, nil
	}
	return now.direct, nil
}

// accepts reports whether a URL may be one of a batch file; loopback: on this machine, too.
func accepts(u *url.URL, loopback bool) bool {
	switch {
	case u.User != nil || u.Opaque != "":
		return false
	case loopback && isLoopback(u):
		return u.Scheme == "https" || u.Scheme == "http"
	}
	return u.Scheme == "https" && (u.Port() == "" || u.Port() == "443") && isPublicName(u.Hostname())
}

// checkAddress returns what is called before each connection that does not lead to a
// corporate proxy, with the address that the name has resolved to.
func (t *Transport) checkAddress(loopback bool) func(_, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		local := loopback && at.Addr().Unmap().IsLoopback()
		if err != nil || !local && (at.Port() != t.port || !isPublic(at.Addr())) {
			return errNotPublic
		}
		return nil
	}
}

// explain says what an error on the way to a file means.
func explain(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	code, detail := event.UpstreamUnreachable, "The batch file's host cannot be reached. Allow it in your firewall or corporate proxy."
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case errors.Is(err, errURL):
		detail = "The proxy rejected Mimecast's batch URL: it accepts only https on port 443 of a public host name."
	case errors.Is(err, errNotPublic):
		detail = "The batch file's host has no public address, and the proxy connects to no other. Check this machine's DNS."
	case untrusted:
		code, detail = event.UpstreamTLS, "The batch file's host has no trusted certificate. If a corporate proxy inspects TLS, set MIMECAST_CA_FILE."
	case isNet && timeout.Timeout() && (!isOp || op.Op != "dial"):
		code, detail = event.UpstreamTimeout, "The batch file's host did not respond in time. Try again."
	}
	return problem.New(code, "%s", detail).Because(err)
}

// impatientBody is a body whose reads fail if nothing arrives for stallTimeout. The time
// that its reader takes does not count.
type impatientBody struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	release func()
	timer   *time.Timer
}

// Read implements io.Reader.
func (b *impatientBody) Read(p []byte) (int, error) {
	if b.timer == nil {
		b.timer = time.AfterFunc(stallTimeout, func() { b.cancel(errStalled) })
	} else {
		b.timer.Reset(stallTimeout)
	}
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

// Close implements io.Closer.
func (b *impatientBody) Close() error {
	defer b.release()
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
