package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/http2"
)

// Upstream says how to reach Mimecast.
type Upstream struct {
	// Roots are the authorities to trust; nil means the system's.
	Roots *x509.CertPool
	// Proxy returns the forward proxy for a request; nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// DialTimeout bounds the TCP and then the TLS handshake, each;
	// ResponseTimeout the wait for response headers, once the request is sent;
	// IdleTimeout the life of an unused connection. 0 means no bound.
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
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
	// An HTTP/2 connection that has been silent for pingAfter is asked for a
	// sign of life, and given up pingTimeout later. Without that, a connection
	// whose peer is gone blocks every request until TCP notices.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
)

// Connections carry requests to one host, Mimecast, and none twice that may have been
// carried out. What is resent is what was provably left undone: a request of
// which no byte was written, or that Mimecast itself said it did not begin
// (GOAWAY, REFUSED_STREAM); and once, a GET whose connection was lost.
type Connections struct {
	*http.Transport
	sharing *sharing
}

// Transport returns the connections to Mimecast: HTTP/2 where it is offered,
// compression untouched, and nothing followed.
func (u Upstream) Transport() Connections {
	dialer := &net.Dialer{Timeout: u.DialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy:                  u.Proxy,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: u.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    u.DialTimeout,
		ResponseHeaderTimeout:  u.ResponseTimeout,
		IdleConnTimeout:        u.IdleTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxIdleConnsPerHost:    maxIdle,
		MaxResponseHeaderBytes: maxResponseHeader,
		DisableCompression:     true,
		OnProxyConnectResponse: connected,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	// Go 1.26's own HTTP/2 takes a stream that ended with PROTOCOL_ERROR for a
	// worn connection and sends the request again, even a write that was carried
	// out (golang/go#47635). The module that it is made from no longer does.
	h2, err := http2.ConfigureTransports(t) //nolint:staticcheck // deprecated for Go 1.27, whose own does not resend either
	if err != nil {
		panic(err) // only for a transport that has HTTP/2 already
	}
	s := &sharing{shared: h2, base: t}
	s.watch(t)
	return Connections{t, s}
}

// connected judges a forward proxy's answer to CONNECT.
func connected(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return &refusedByProxy{res.StatusCode}
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (c Connections) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := c.sharing.RoundTrip(req)
	if err == nil || !lost(err) || req.Context().Err() != nil || !onlyReads(req) {
		return res, err
	}
	// A connection had gone stale. Reading twice changes nothing.
	return c.sharing.RoundTrip(req)
}

// onlyReads reports whether req changes nothing by its method, and has no body
// that would be gone.
func onlyReads(req *http.Request) bool {
	return (req.Method == http.MethodGet || req.Method == http.MethodHead) && (req.Body == nil || req.Body == http.NoBody)
}
