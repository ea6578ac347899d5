package app

import (
	"context"
	"crypto/x509"

	"mimecast-proxy/account"
	"mimecast-proxy/batch"
	"mimecast-proxy/config"
)

// newDownload returns what fetches files from the addresses that Mimecast issues, without
// the token.
func newDownload(cfg config.Config, roots *x509.CertPool) *batch.Transport {
	return batch.NewTransport(batch.TransportOptions{
		Roots: roots, Proxy: corporateProxy(cfg), AllowLoopback: isOfSimulator,
		DialTimeout: cfg.DialTimeout, ResponseTimeout: cfg.ResponseTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxConnections: cfg.MaxConnections,
	})
}

// isOfSimulator reports whether the account of a request is a simulator's on this machine,
// whose files are there too.
func isOfSimulator(ctx context.Context) bool {
	a := account.Of(ctx)
	return a != nil && isLoopback(a.BaseURL.Hostname())
}
