package app

import (
	"context"
	"crypto/x509"

	"mimecast-proxy/account"
	"mimecast-proxy/batch"
	"mimecast-proxy/config"
)

// newDownload returns the transport that downloads files from the URLs that Mimecast issues.
// It sends no token.
func newDownload(cfg config.Config, roots *x509.CertPool) *batch.Transport {
	return batch.NewTransport(batch.TransportOptions{
		Roots: roots, Proxy: corporateProxy(cfg), AllowLoopback: isOfSimulator,
		DialTimeout: cfg.DialTimeout, ResponseTimeout: cfg.ResponseTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxConnections: cfg.MaxConnections,
	})
}

// isOfSimulator reports whether a request's account is at a simulator on this machine. Then its
// files are on this machine too.
func isOfSimulator(ctx context.Context) bool {
	a := account.Of(ctx)
	return a != nil && isLoopback(a.BaseURL.Hostname())
}
