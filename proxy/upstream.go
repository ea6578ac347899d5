package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
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

// Transport returns the connections to Mimecast: HTTP/2 where it is offered,
// compression untouched, nothing followed and nothing retried that Mimecast may
// have seen.
func (u Upstream) Transport() *http.Transport {
	dialer := &net.Dialer{Timeout: u.DialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
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
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}
