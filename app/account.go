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

// accountSpec says which account one is.
type accountSpec struct {
	name, region      string
	baseURL, tokenURL *url.URL
	// id and secret return the current credentials; origin says where they come from,
	// and remedy what to do if they are rejected.
	id, secret     func() secret.Text
	origin, remedy string
	// from names the settings with the credentials; empty: those of the variables.
	from string
}

// defaultAccount is the account of the MIMECAST_ variables.
func defaultAccount(cfg config.Config) accountSpec {
	return accountSpec{
		name: account.Default, region: cfg.Region, baseURL: cfg.BaseURL, tokenURL: cfg.TokenURL,
		id: cfg.ClientID.Value, secret: cfg.ClientSecret.Value,
		origin: cfg.Origin(cfg.ClientSecret), remedy: credentialsRemedy(cfg),
	}
}

// mimecastAccount is one account at Mimecast with what runs for it.
type mimecastAccount struct {
	accountSpec
	*account.Account // as requests use it

	upstream *upstream.Connections
	// endpoint leads to the token endpoint; it is upstream if both have one host.
	endpoint *upstream.Connections
	source   *token.Source
	sealed   secretHistory
	// credentials are nil for the account of the variables.
	credentials *atomic.Pointer[fileCredentials]
	// gone is set once the account is retired: from then on it reports nothing.
	gone atomic.Bool
	// clockSkew is how far this machine's clock is ahead of Mimecast, as a
	// time.Duration; 0 before that is known.
	clockSkew atomic.Int64

	// stop ends the goroutine that renews the token, and ended is closed when it has.
	stop  context.CancelFunc
	ended chan struct{}
}

// newAccount returns an account whose token is not renewed yet. It reports to telemetry,
// and makes its tokens known to the redactor. Its connections verify by the roots.
func newAccount(spec accountSpec, cfg config.Config, trusted *x509.CertPool, tel *telemetry.Telemetry, redactor *telemetry.Redactor) *mimecastAccount {
	api := connections(cfg, trusted)
	a := &mimecastAccount{accountSpec: spec, upstream: api, endpoint: api}
	if spec.tokenURL.Host != spec.baseURL.Host { // so that they share no limit
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
				return // another account may have its name
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
	a.SealKeys() // the first of the history
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

// credentialsChanged requests a token with them.
func (a *mimecastAccount) credentialsChanged() {
	a.SealKeys()
	a.source.CredentialsChanged()
}

// trust makes new connections verify by other roots.
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

// previousSecret is how long the secret before the current one opens batch URLs: other
// replicas may have sealed them just before it changed.
const previousSecret = 24 * time.Hour

// secretHistory remembers the secret before the current one.
type secretHistory struct {
	mu                sync.Mutex // guards the rest
	current, previous secret.Text
	changed           time.Time
}

// with returns the current secret and the one before, if there was one lately.
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

// connections returns the connections to one Mimecast host.
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
