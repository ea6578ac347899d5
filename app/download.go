package app

import (
	"crypto/x509"
	"slices"

	"mimecast-proxy/batch"
	"mimecast-proxy/config"
)

// newDownload returns what fetches files from the addresses that Mimecast issues, without
// the token. Only if every account is a simulator's on this machine may they be there too.
func newDownload(cfg config.Config, roots *x509.CertPool, all []*mimecastAccount) *batch.Transport {
	elsewhere := func(a *mimecastAccount) bool { return !isLoopback(a.baseURL.Hostname()) }
	return batch.NewTransport(batch.TransportOptions{
		Roots: roots, Proxy: corporateProxy(cfg), AllowLoopback: !slices.ContainsFunc(all, elsewhere),
		DialTimeout: cfg.DialTimeout, ResponseTimeout: cfg.ResponseTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxConnections: cfg.MaxConnections,
	})
}
