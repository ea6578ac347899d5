package app

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"mimecast-proxy/config"
	"mimecast-proxy/telemetry"
)

// download fetches files from the addresses that Mimecast issues, on another host than
// the API's, without the token. It takes https alone, but for a simulator on this machine.
type download struct{ transport *http.Transport }

func newDownload(cfg config.Config) download {
	forward := corporateProxy(cfg)
	return download{&http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return forward(r.URL) },
		TLSHandshakeTimeout: cfg.DialTimeout, ResponseHeaderTimeout: cfg.ResponseTimeout, IdleConnTimeout: cfg.IdleTimeout,
		DisableCompression: true, MaxConnsPerHost: cfg.MaxConnections, ForceAttemptHTTP2: true,
	}}
}

// RoundTrip implements http.RoundTripper.
func (d download) RoundTrip(r *http.Request) (*http.Response, error) {
	ip, err := netip.ParseAddr(r.URL.Hostname())
	if loopback := err == nil && ip.IsLoopback(); r.URL.Scheme != "https" && !loopback {
		return nil, fmt.Errorf("the address of a batch file is not https: %s", telemetry.Scrub(r.URL.Redacted()))
	}
	return d.transport.RoundTrip(r)
}
