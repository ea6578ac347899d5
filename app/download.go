package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"

	"mimecast-proxy/config"
	"mimecast-proxy/telemetry"
)

// download fetches files from the addresses that Mimecast issues, on another host than
// the API's, without the token. It takes https alone, but for a simulator on this machine.
type download struct {
	cfg     config.Config
	current atomic.Pointer[http.Transport]
}

func newDownload(cfg config.Config, roots *x509.CertPool) *download {
	d := &download{cfg: cfg}
	d.trust(roots)
	return d
}

// trust makes new connections verify by other roots; nil: the system's.
func (d *download) trust(roots *x509.CertPool) {
	forward := corporateProxy(d.cfg)
	before := d.current.Swap(&http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return forward(r.URL) },
		DialContext:         (&net.Dialer{Timeout: d.cfg.DialTimeout}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: d.cfg.DialTimeout, ResponseHeaderTimeout: d.cfg.ResponseTimeout, IdleConnTimeout: d.cfg.IdleTimeout,
		DisableCompression: true, MaxConnsPerHost: d.cfg.MaxConnections, ForceAttemptHTTP2: true,
	})
	if before != nil {
		before.CloseIdleConnections()
	}
}

func (d *download) closeIdleConnections() { d.current.Load().CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (d *download) RoundTrip(r *http.Request) (*http.Response, error) {
	ip, err := netip.ParseAddr(r.URL.Hostname())
	if loopback := err == nil && ip.IsLoopback(); r.URL.Scheme != "https" && !loopback {
		return nil, fmt.Errorf("the address of a batch file is not https: %s", telemetry.Scrub(r.URL.Redacted()))
	}
	return d.current.Load().RoundTrip(r)
}
