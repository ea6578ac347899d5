package app

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// accountSpec describes an account before anything runs for it.
type accountSpec struct {
	name, region      string
	baseURL, tokenURL *url.URL
	// id and secret return the current credentials. origin names their source, and
	// remedy is the advice for the user if Mimecast rejects them.
	id, secret     func() secret.Text
	origin, remedy string
	// from names the settings that hold the credentials; empty: the MIMECAST_ variables.
	from string
}

// defaultAccount returns the account that the MIMECAST_ variables configure.
func defaultAccount(cfg config.Config) accountSpec {
	return accountSpec{
		name: account.Default, region: cfg.Region, baseURL: cfg.BaseURL, tokenURL: cfg.TokenURL,
		id: cfg.ClientID.Value, secret: cfg.ClientSecret.Value,
		origin: cfg.Origin(cfg.ClientSecret), remedy: credentialsRemedy(cfg),
	}
}

// mimecastAccount is one Mimecast account with its connections and its token source.
type mimecastAccount struct {
	accountSpec
	*account.Account // what requests see of the account

	upstream *upstream.Connections
	// endpoint has the connections to the token endpoint. It is the same as upstream if
	// both URLs have the same host.
	endpoint *upstream.Connections
	source   *token.Source
	sealed   secretHistory
	// credentials is nil for the default account.
	credentials *atomic.Pointer[fileCredentials]
	// gone is set when the account is retired. It reports nothing after that.
	gone atomic.Bool
	// clockSkew is how far this machine's clock is ahead of Mimecast, as a time.Duration;
	// 0 until it is known.
	clockSkew atomic.Int64

	// stop stops the goroutine that renews the token; ended is closed when it has
	// returned.
	stop  context.CancelFunc
	ended chan struct{}
}

// newAccount returns an account that does not renew its token yet. The account reports to
// telemetry, and adds its tokens to the redactor. Its connections verify certificates
// against trusted.
func newAccount(spec accountSpec, cfg config.Config, trusted *x509.CertPool, tel *telemetry.Telemetry, redactor *telemetry.Redactor) *mimecastAccount {
	api := connections(cfg, trusted)
	a := &mimecastAccount{accountSpec: spec, upstream: api, endpoint: api}
	if spec.tokenURL.Host != spec.baseURL.Host { // separate connection limits
		a.endpoint = connections(cfg, trusted)
	}
	grant := &token.ClientCredentials{
		URL: spec.tokenURL.String(), ID: spec.id, Secret: spec.secret, Transport: a.endpoint, From: spec.from,
		OnClockSkew: func(skew time.Duration) {
			a.clockSkew.Store(int64(skew))
			tel.Clock(skew)
			if warning := clockSkewWarning(skew); warning != "" {
				tel.Logger().Warn("wrong clock", "detail", warning)
			}
		},
	}
	a.source = &token.Source{Fetcher: grant, Trace: token.Trace{
		Start: func(event.TokenTrigger) {
			if !a.gone.Load() {
				tel.TokenStart(spec.name)
			}
		},
		Done: func(t event.TokenTrigger, took time.Duration, tok *token.Token, err error) {
			if a.gone.Load() {
				return // a new account may have the same name
			}
			expiry := time.Time{}
			if err == nil {
				expiry = tok.Expiry()
				redactToken(redactor, spec.name, tok)
			}
			tel.TokenDone(spec.name, t, outcomeOf(err), took, expiry, withDetail(err))
		},
	}}
	a.Account = &account.Account{
		Name: spec.name, BaseURL: spec.baseURL, Transport: api, TokenPath: tokenPath(spec.baseURL, spec.tokenURL),
		Tokens:   tokens{source: a.source, redactor: redactor, remedy: spec.remedy, gone: &a.gone},
		SealKeys: func() []secret.Text { return a.sealed.with(spec.secret()) },
	}
	a.SealKeys() // records the first secret in the history
	return a
}

// start renews the token until ctx ends or the account is retired.
func (a *mimecastAccount) start(ctx context.Context) {
	ctx, a.stop = context.WithCancel(ctx)
	a.ended = make(chan struct{})
	go func() {
		defer close(a.ended)
		a.source.Run(ctx)
	}()
}

// credentialsChanged requests a token with the new credentials.
func (a *mimecastAccount) credentialsChanged() {
	a.SealKeys()
	a.source.CredentialsChanged()
}

// trust sets the certificate authorities for new connections.
func (a *mimecastAccount) trust(roots *x509.CertPool) {
	a.upstream.Trust(roots)
	if a.endpoint != a.upstream {
		a.endpoint.Trust(roots)
	}
}

func (a *mimecastAccount) closeIdleConnections() {
	a.upstream.CloseIdleConnections()
	a.endpoint.CloseIdleConnections()
}

// previousSecret is how long batch URLs sealed with the previous secret still open. Other
// replicas may have sealed them just before the secret changed.
const previousSecret = 24 * time.Hour

// secretHistory holds the current and the previous client secret.
type secretHistory struct {
	mu                sync.Mutex // guards the rest
	current, previous secret.Text
	changed           time.Time
}

// with records the current secret. It returns that secret and the previous one, if the
// secret changed within previousSecret.
func (h *secretHistory) with(current secret.Text) []secret.Text {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !current.Equal(h.current) {
		h.current, h.previous, h.changed = current, h.current, time.Now()
	}
	if time.Since(h.changed) > previousSecret {
		h.previous = secret.Text{}
	}
	return slices.DeleteFunc([]secret.Text{h.current, h.previous}, secret.Text.IsZero)
}

// connections returns a connection pool for one Mimecast host.
func connections(cfg config.Config, roots *x509.CertPool) *upstream.Connections {
	forward := corporateProxy(cfg)
	return upstream.New(upstream.Options{
		Roots:           roots,
		Proxy:           func(r *http.Request) (*url.URL, error) { return forward(r.URL) },
		DialTimeout:     cfg.DialTimeout,
		ResponseTimeout: cfg.ResponseTimeout,
		IdleTimeout:     cfg.IdleTimeout,
		MaxConnections:  cfg.MaxConnections,
		MemoryLimit:     cfg.MemoryLimit,
	})
}

// corporateProxy returns a function that returns the corporate proxy to use for a URL; nil
// means a direct connection.
func corporateProxy(cfg config.Config) func(*url.URL) (*url.URL, error) {
	return (&httpproxy.Config{
		HTTPProxy: cfg.HTTPProxy.Reveal(), HTTPSProxy: cfg.HTTPSProxy.Reveal(), NoProxy: cfg.NoProxy,
	}).ProxyFunc()
}

// roots returns the system's certificate authorities together with those of ca. If ca has
// none, it returns nil, which crypto/tls takes for the system's authorities.
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
