// Package upstream is the connections to Mimecast: how many there are, when they are
// made and given up, what may be sent again on another one, and what a failure of
// one means.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"mimecast-proxy/resend"

	"golang.org/x/net/http2"
)

// Options say how to reach Mimecast. The zero value is usable: the system's roots, no
// corporate proxy and no bounds.
type Options struct {
	// Roots are the authorities to trust; nil means the system's.
	Roots *x509.CertPool
	// Proxy returns the corporate proxy for a request; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// DialTimeout bounds the TCP and then the TLS handshake, each;
	// ResponseTimeout the wait for response headers, once the request is sent;
	// IdleTimeout the life of an unused connection. 0 means no bound.
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
	// MaxConnections bounds the connections for new requests: over HTTP/2 those that
	// are being made, over HTTP/1.1 all of them, and so the requests that are upstream
	// at once. Further requests wait. Connections that an older transport still uses
	// do not count. 0 means no bound.
	MaxConnections int
	// MemoryLimit is the memory that the process may use, in bytes. HTTP/2's
	// receive windows take at most an eighth of it. 0 means that it is not known.
	MemoryLimit int64
}

const (
	// maxIdle is how many connections are kept for the next burst, over
	// HTTP/1.1. The default of two would dial anew for nearly each request.
	maxIdle = 1024
	// maxResponseHeader bounds the upstream's response headers, in bytes.
	maxResponseHeader = 256 << 10
	// continueTimeout is how long a large body waits for 100 Continue before
	// it is sent regardless (RFC 9110, section 10.1.1).
	continueTimeout = 2 * time.Second
	// An HTTP/2 connection that has been silent for pingAfter gets a PING, and is
	// closed pingTimeout later. Without that, a connection whose peer is gone blocks
	// every request until TCP notices.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// maxUnsent bounds how often a request is sent again because its connection
	// ended before anything was written.
	maxUnsent = 3
	// transportLife is how long a transport gets new requests. Only a new
	// connection looks the name up, and one that is in use never ends otherwise.
	transportLife = 4 * time.Minute
)

// Connections carry requests to one host, Mimecast. They resend a request that was not
// written, one that Mimecast reports as unprocessed (GOAWAY, REFUSED_STREAM), and once a
// GET whose connection was lost. They never resend a write that may have been carried
// out. Create them with [New].
type Connections struct {
	options   atomic.Pointer[Options]
	transport atomic.Pointer[agedTransport]
	life      time.Duration // of a transport
	dials     *dialGate
	receivers *receivers
}

// agedTransport is a transport that knows when it was made.
type agedTransport struct {
	*http.Transport
	made time.Time
}

// New returns the connections to Mimecast: HTTP/2 if it is offered, compression
// untouched, and no redirect followed.
func New(o Options) *Connections {
	c := &Connections{life: transportLife, dials: newDialGate(), receivers: newReceivers(windowsFor(o.MemoryLimit).streams)}
	c.options.Store(&o)
	c.transport.Store(c.newTransport())
	return c
}

func (c *Connections) newTransport() *agedTransport {
	o := c.options.Load()
	return &agedTransport{o.transport(c.dials, windowsFor(o.MemoryLimit)), time.Now()}
}

// current returns the transport for a new request. One older than transportLife is
// replaced, so that DNS changes are followed. In-flight requests finish on the old one.
// Its idle connections end by their own timeout: closing them now could take a new one
// from the request that it was made for.
func (c *Connections) current() *http.Transport {
	t := c.transport.Load()
	if time.Since(t.made) < c.life {
		return t.Transport
	}
	next := c.newTransport()
	if !c.transport.CompareAndSwap(t, next) {
		return c.transport.Load().Transport // another request replaced it
	}
	return next.Transport
}

func (o Options) transport(dials *dialGate, windows windows) *http.Transport {
	dialer := &net.Dialer{Timeout: o.DialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy:                  o.Proxy,
		DialContext:            dials.dialWith(dialer.DialContext),
		TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    o.DialTimeout,
		ResponseHeaderTimeout:  o.ResponseTimeout,
		IdleConnTimeout:        o.IdleTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxConnsPerHost:        o.MaxConnections,
		MaxIdleConnsPerHost:    maxIdle,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		OnProxyConnectResponse: checkConnectResponse,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout,
			MaxReceiveBufferPerStream: windows.perStream, MaxReadFrameSize: windows.frame,
		},
	}
	// Go 1.26's own HTTP/2 takes a stream that ended with PROTOCOL_ERROR for a
	// worn connection and sends the request again, even a write that was carried
	// out (golang/go#47635). The module that it is made from no longer does.
	if _, err := http2.ConfigureTransports(t); err != nil { //nolint:staticcheck // deprecated for Go 1.27, whose own does not resend either
		panic(err) // only for a transport that has HTTP/2 already
	}
	return t
}

// Trust replaces the authorities to trust; nil means the system's. In-flight requests
// finish on their connections; later ones get new connections.
func (c *Connections) Trust(roots *x509.CertPool) {
	o := *c.options.Load()
	o.Roots = roots
	c.options.Store(&o) // first: a transport that replaces this one has them too
	// A request that loses its connection to this is sent on another.
	c.transport.Swap(c.newTransport()).CloseIdleConnections()
}

// ForwardProxy returns the corporate proxy for a URL; nil if there is none.
func (c *Connections) ForwardProxy(u *url.URL) (*url.URL, error) {
	forward := c.options.Load().Proxy
	if forward == nil {
		return nil, nil
	}
	return forward(&http.Request{URL: u})
}

// CloseIdleConnections closes the connections that no request uses, but for those of
// transports that were replaced: they end by their own timeout.
func (c *Connections) CloseIdleConnections() { c.transport.Load().CloseIdleConnections() }

// RoundTrip implements http.RoundTripper. An error is a [*problem.Problem], but for a
// request whose context has ended. A request that bears a token by
// [account.WithToken] is not sent after that expires: the cause is then
// [account.ErrTokenExpired].
func (c *Connections) RoundTrip(req *http.Request) (*http.Response, error) {
	place, err := c.receivers.acquire(req.Context())
	if err != nil {
		resend.CloseBody(req)
		return nil, err
	}
	res, err := c.roundTrip(req)
	if err != nil {
		place.release()
		if req.Context().Err() != nil {
			return nil, err
		}
		return nil, Explain(err)
	}
	return place.receive(res), nil
}

// roundTrip makes as many attempts as are safe.
func (c *Connections) roundTrip(req *http.Request) (*http.Response, error) {
	for unsent := 1; ; unsent++ {
		res, err := c.attempt(req)
		if err == nil || req.Context().Err() != nil {
			return res, err
		}
		failed, _ := errors.AsType[*attemptError](err)
		switch {
		case failed.isConnectionLost() && onlyReads(req):
			return c.attempt(req) // reading twice changes nothing
		case failed.phase != connected || unsent == maxUnsent:
			return nil, err
		}
		again, rewindErr := resend.Rewind(req)
		if rewindErr != nil {
			return nil, err
		}
		req = again
	}
}

// onlyReads reports whether req changes nothing by its method, and has no body
// that would be gone.
func onlyReads(req *http.Request) bool {
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) && (req.Body == nil || req.Body == http.NoBody)
}

// checkConnectResponse is for a corporate proxy's response to CONNECT.
func checkConnectResponse(_ context.Context, via *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	refused := &refusedByProxy{status: res.StatusCode, signedIn: via.User != nil}
	for _, scheme := range authSchemes(res.Header.Values("Proxy-Authenticate")) {
		if strings.EqualFold(scheme, "Basic") {
			refused.basic = true
		} else {
			refused.others = true
		}
	}
	return refused
}

// authSchemes returns the authentication schemes of a list of challenges (RFC 9110,
// section 11.6.1).
func authSchemes(challenges []string) []string {
	var schemes []string
	for _, list := range challenges {
		quoted, escaped := false, false
		for part := range strings.FieldsFuncSeq(list, func(r rune) bool {
			switch {
			case escaped:
				escaped = false
			case quoted && r == '\\':
				escaped = true
			case r == '"':
				quoted = !quoted
			}
			return r == ',' && !quoted
		}) {
			scheme, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
			isParameter := strings.Contains(scheme, "=") || strings.HasPrefix(strings.TrimSpace(rest), "=")
			if scheme != "" && !isParameter {
				schemes = append(schemes, scheme)
			}
		}
	}
	return schemes
}
