package app

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// mimecastAccount is one account at Mimecast with what runs for it.
type mimecastAccount struct {
	upstream *upstream.Connections
	// endpoint leads to the token endpoint; it is upstream if both have one host.
	endpoint *upstream.Connections
	download *download // of batch files
	grant    *token.ClientCredentials
	source   *token.Source
	// clockSkew is how far this machine's clock is ahead of Mimecast's, as a
	// time.Duration; 0 before that is known.
	clockSkew atomic.Int64
}

// newAccount returns the account of the MIMECAST_ variables. It reports to telemetry,
// and makes its tokens known to the redactor.
func newAccount(cfg config.Config, tel *telemetry.Telemetry, redactor *telemetry.Redactor) (*mimecastAccount, error) {
	api, err := connections(cfg)
	if err != nil {
		return nil, err
	}
	a := &mimecastAccount{upstream: api, endpoint: api}
	trusted, err := roots(cfg.CA)
	if err != nil {
		return nil, err
	}
	a.download = newDownload(cfg, trusted)
	if cfg.TokenURL.Host != cfg.BaseURL.Host { // so that they share no limit
		if a.endpoint, err = connections(cfg); err != nil {
			return nil, err
		}
	}
	a.grant = &token.ClientCredentials{
		URL: cfg.TokenURL.String(), ID: cfg.ClientID.Value, Secret: cfg.ClientSecret.Value, Transport: a.endpoint,
		OnClockSkew: func(skew time.Duration) {
			a.clockSkew.Store(int64(skew))
			tel.Clock(skew)
			if warning := clockSkewWarning(skew); warning != "" {
				tel.Logger().Warn("wrong clock", "detail", warning)
			}
		},
	}
	a.source = &token.Source{Fetcher: a.grant, Trace: token.Trace{
		Start: tel.TokenStart,
		Done: func(t event.TokenTrigger, took time.Duration, tok *token.Token, err error) {
			expiry := time.Time{}
			if err == nil {
				expiry = tok.Expiry()
				redactToken(redactor, tok)
			}
			tel.TokenDone(t, outcomeOf(err), took, expiry, withDetail(err))
		},
	}}
	return a, nil
}

// forRequests returns the account as requests use it.
func (a *mimecastAccount) forRequests(cfg config.Config, redactor *telemetry.Redactor) *account.Account {
	return &account.Account{
		Name: account.Default, BaseURL: cfg.BaseURL, Transport: a.upstream,
		Tokens: tokens{source: a.source, redactor: redactor, remedy: credentialsRemedy(cfg)},
	}
}

// trust makes new connections verify by other roots.
func (a *mimecastAccount) trust(roots *x509.CertPool) {
	a.upstream.Trust(roots)
	a.download.trust(roots)
	if a.endpoint != a.upstream {
		a.endpoint.Trust(roots)
	}
}

func (a *mimecastAccount) closeIdleConnections() {
	a.upstream.CloseIdleConnections()
	a.download.closeIdleConnections()
	a.endpoint.CloseIdleConnections()
}

// connections returns the connections to one host of Mimecast's.
func connections(cfg config.Config) (*upstream.Connections, error) {
	roots, err := roots(cfg.CA)
	if err != nil {
		return nil, err
	}
	forward := corporateProxy(cfg)
	return upstream.New(upstream.Options{
		Roots:           roots,
		Proxy:           func(r *http.Request) (*url.URL, error) { return forward(r.URL) },
		DialTimeout:     cfg.DialTimeout,
		ResponseTimeout: cfg.ResponseTimeout,
		IdleTimeout:     cfg.IdleTimeout,
		MaxConnections:  cfg.MaxConnections,
		MemoryLimit:     cfg.MemoryLimit,
	}), nil
}

// corporateProxy returns the corporate proxy on the way to a URL, or nil.
func corporateProxy(cfg config.Config) func(*url.URL) (*url.URL, error) {
	return (&httpproxy.Config{
		HTTPProxy: cfg.HTTPProxy.Reveal(), HTTPSProxy: cfg.HTTPSProxy.Reveal(), NoProxy: cfg.NoProxy,
	}).ProxyFunc()
}

// roots returns the system's authorities and those of ca; nil, which means the
// system's, if there are none.
func roots(ca config.Authorities) (*x509.CertPool, error) {
	certificates := ca.Certificates()
	if len(certificates) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool, nil
}
