package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// configure judges the environment. Routes are for the guard to judge, and what
// it finds is told along with all the rest.
func configure(environ []string) (config.Config, error) {
	cfg, err := config.Parse(withMemoryLimit(environ, os.DirFS("/")))
	if _, routeErr := guard.ParseRoutes(cfg.Allow); routeErr != nil {
		faults, ok := errors.AsType[*config.Error](err)
		if !ok {
			faults = &config.Error{}
		}
		faults.Errors = append(faults.Errors, config.VariableError{Variable: "PROXY_ALLOW", Found: routeErr.Error(), Accepted: "patterns such as GET /siem/, and presets"})
		return cfg, faults
	}
	return cfg, err
}

// parts are what a running proxy is made of.
type parts struct {
	cfg      config.Config
	tel      *telemetry.Telemetry
	upstream *upstream.Connections
	// endpoint leads to the token endpoint; it is upstream where that is of the
	// same host.
	endpoint *upstream.Connections
	grant    *token.ClientCredentials
	source   *token.Source
	redactor *telemetry.Redactor
	guard    *guard.Guard
	// trust makes new connections to Mimecast verify by other roots.
	trust func(roots *x509.CertPool)
	// fileReload is told of each reload of a file: the variable that names it, and an
	// outcome of config's.
	fileReload func(variable, outcome string)
	// reread is for signals that ask to read all files at once.
	reread <-chan os.Signal
	// ahead is how far this machine's clock is ahead of Mimecast's, as a
	// time.Duration; 0 before that is known.
	ahead *atomic.Int64
}

// assemble builds the parts. The error is a fault of the configuration.
func (p Env) assemble(cfg config.Config) (*parts, error) {
	if l := p.Supervisor.Data; l != nil {
		if w := socketWarning("PROXY_LISTEN", l, cfg); w != "" {
			cfg.Warnings = append(cfg.Warnings, w)
		}
	}
	if cfg.MemoryLimit > 0 {
		debug.SetMemoryLimit(cfg.MemoryLimit)
	}
	routes, err := guard.ParseRoutes(cfg.Allow)
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	redactor := cmp.Or(p.Redactor, new(telemetry.Redactor))
	redactSecrets(redactor, cfg)
	tel, err := p.newTelemetry(cfg, routes, redactor)
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	api, err := connections(cfg)
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	endpoint := api
	if cfg.TokenURL.Host != cfg.BaseURL.Host { // no request waits for a connection to the other
		if endpoint, err = connections(cfg); err != nil {
			return nil, &ExitError{ExitUsage, err}
		}
	}
	ahead := new(atomic.Int64)
	grant := &token.ClientCredentials{
		URL: cfg.TokenURL.String(), ID: cfg.ClientID.Value, Secret: cfg.ClientSecret.Value, Transport: endpoint,
		OnClockSkew: func(d time.Duration) {
			ahead.Store(int64(d))
			tel.Clock(d)
			if fault := judgeClock(d); fault != "" {
				tel.Logger().Warn("wrong clock", "detail", fault)
			}
		},
	}
	source := &token.Source{Fetcher: grant, Trace: token.Trace{
		Start: tel.TokenStart,
		Done: func(t event.TokenTrigger, took time.Duration, tok *token.Token, err error) {
			outcome, expiry := event.TokenOK, time.Time{}
			if err != nil {
				outcome = outcomeOf(err)
			} else {
				expiry = tok.Expiry()
				redactToken(redactor, tok)
			}
			tel.TokenDone(t, outcome, took, expiry, explain(err))
		},
	}}
	g, err := guard.New(guard.Policy{
		Hosts: hosts(cfg), Origins: cfg.AllowedOrigins, Keys: cfg.APIKey.Values(),
		Routes: cfg.Allow, ReportOnly: cfg.AllowReport, TokenStub: cfg.TokenStub, TokenPath: tokenPath(cfg), MaxRequests: cfg.MaxRequests,
		MaxHeaderFields: cfg.MaxHeaderFields,
		Account: &account.Account{
			BaseURL: cfg.BaseURL, Transport: api,
			Tokens: tokens{source: source, redactor: redactor, cure: refusalCure(cfg)},
		},
		Trace: guard.Trace{Denied: tel.Denied, Route: tel.Route},
	})
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	return &parts{
		cfg: cfg, tel: tel, upstream: api, endpoint: endpoint, grant: grant, source: source, redactor: redactor, guard: g, ahead: ahead, reread: p.Reread,
		fileReload: tel.FileReloaded,
		trust: func(roots *x509.CertPool) {
			api.Trust(roots)
			if endpoint != api {
				endpoint.Trust(roots)
			}
		},
	}, nil
}

// newTelemetry returns the log and the metrics, with what else writes to stderr led
// to the log.
func (p Env) newTelemetry(cfg config.Config, routes []string, redactor *telemetry.Redactor) (*telemetry.Telemetry, error) {
	version, revision, _ := Build()
	tel, err := telemetry.New(telemetry.Options{
		Output: p.Stderr, Redactor: redactor,
		Level: cfg.LogLevel, Format: cfg.LogFormat, Terminal: p.Terminal,
		Version: version, Revision: revision, Routes: routes,
		MaxRequests: int64(cfg.MaxRequests), ReplayMemory: cfg.ReplayMemory,
	})
	if err != nil {
		return nil, err
	}
	surviveBrokenPipes() // whoever reads the log may go
	// net/http tells the standard logger what it has nobody else to tell, a
	// peer's bytes among it.
	log.SetFlags(0)
	log.SetOutput(tel.StdLog("debug").Writer())
	return tel, nil
}

// redactSecrets makes the configuration's secrets known to a redactor. A file that
// cannot be read is reported where its secret is needed.
func redactSecrets(r *telemetry.Redactor, cfg config.Config) {
	r.Set("client secret", cfg.ClientSecret.Values()...)
	redactKeys(r, cfg.APIKey.Values()...)
	var passwords []secret.Text
	for _, raw := range []secret.Text{cfg.HTTPProxy, cfg.HTTPSProxy} {
		text := raw.Reveal()
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		if u, err := url.Parse(text); err == nil {
			password, _ := u.User.Password()
			passwords = append(passwords, secret.New(password))
		}
	}
	r.Set("corporate proxy", passwords...)
}

// redactKeys makes the keys in force known to a redactor, and the stub's tokens.
func redactKeys(r *telemetry.Redactor, keys ...secret.Text) {
	texts := slices.Clone(keys)
	for _, key := range keys {
		texts = append(texts, guard.StubToken(key))
	}
	r.Set("API key", texts...)
}

// redactToken makes a token known to a redactor, before any request bears it.
func redactToken(r *telemetry.Redactor, tok *token.Token) {
	_, text, _ := strings.Cut(tok.Authorization(), " ")
	r.Add(secret.New(text))
}

// wrongClock is from where on a clock is worth a word. A token's lifetime is
// counted from when it was fetched, so none is needed to be right to the second.
const wrongClock = time.Minute

// judgeClock says what is wrong with this machine's clock, or nothing.
func judgeClock(ahead time.Duration) string {
	if ahead.Abs() < wrongClock {
		return ""
	}
	which := "ahead of"
	if ahead < 0 {
		which = "behind"
	}
	return fmt.Sprintf("this machine's clock is %v %s Mimecast's; set it, since certificates and time ranges in requests depend on it", ahead.Abs().Round(time.Second), which)
}

func outcomeOf(err error) event.TokenOutcome {
	if e, ok := errors.AsType[*token.Error](err); ok {
		return e.Outcome
	}
	return event.TokenFailed
}

// handler returns the data port. It is the way of a request, in order: each layer
// hands it to the next, and no layer is added anywhere else.
func (p *parts) handler() http.Handler {
	trace := proxy.Trace{Unauthorized: p.tel.Unauthorized, Retried: p.tel.Retried, Answered: p.tel.Answered, Failed: p.tel.Failed, Held: p.tel.RateLimitWait}
	budget := proxy.NewBudget(p.cfg.ReplayMemory, p.tel.ReplayBytes)
	return stack(
		p.tel.Wrap,   // record, count and log
		p.guard.Wrap, // reject what may not pass; set account and client
	)(proxy.New(proxy.Options{ // ReverseProxy: target and headers
		Transport: stack(
			proxy.Replay(p.cfg.ReplayLimit, budget), // make the body repeatable
			proxy.Limit(p.cfg.RateLimitWait, trace), // on 429, wait and resend
		)(proxy.Authenticate(trace)), // add the token; on 401, renew and resend; then the account's connections
		Trace: trace, ErrorLog: p.tel.StdLog("warn"),
	}))
}

// stack joins layers, of which the first is the outermost.
func stack[T any](layers ...func(T) T) func(T) T {
	return func(inner T) T {
		for _, layer := range slices.Backward(layers) {
			inner = layer(inner)
		}
		return inner
	}
}

// tokens is a token source as the proxy wants it: with an answer for the
// client where there is no token.
type tokens struct {
	source   *token.Source
	redactor *telemetry.Redactor
	cure     string // of credentials that are refused
}

func (t tokens) Token(ctx context.Context) (account.Token, error) {
	tok, err := t.source.Token(ctx)
	if err != nil {
		return nil, t.redacted(noToken(ctx, err, t.cure))
	}
	return tok, nil
}

// redacted is err with a detail for the client that has no secret in it, whatever
// the token endpoint answered.
func (t tokens) redacted(err error) error {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		p.Detail = t.redactor.Redact(p.Detail)
	}
	return err
}

func (t tokens) Renew(ctx context.Context, rejected account.Token) (account.Token, error) {
	held, ok := rejected.(*token.Token)
	if !ok {
		return nil, fmt.Errorf("renewing a foreign token of type %T", rejected)
	}
	tok, err := t.source.Renew(ctx, held)
	if err != nil {
		return nil, t.redacted(noToken(ctx, err, t.cure))
	}
	return tok, nil
}

func (t tokens) Expire(expired account.Token) {
	if held, ok := expired.(*token.Token); ok {
		t.source.Expire(held)
	}
}

// refusalCure says what to do about credentials that Mimecast refuses: it depends
// on whether they come from files, which are reloaded, or from variables.
func refusalCure(cfg config.Config) string {
	id, key := cfg.ClientID.Variable(), cfg.ClientSecret.Variable()
	idFile, keyFile := strings.HasSuffix(id, "_FILE"), strings.HasSuffix(key, "_FILE")
	switch {
	case idFile && keyFile:
		return "Correct the file in " + id + " or " + key + "; the proxy reloads both."
	case keyFile:
		return "Correct the file in " + key + ", which the proxy reloads; if you change " + id + ", restart the proxy."
	case idFile:
		return "Change " + key + " and restart the proxy; it reloads the file in " + id + "."
	default:
		return "Change " + id + " or " + key + " and restart the proxy."
	}
}

// noToken is what the client is told where there is no token. The cure is for
// credentials that are refused.
func noToken(ctx context.Context, err error, cure string) error {
	if ctx.Err() != nil {
		return err // the request ended: there is nothing to say about tokens
	}
	if errors.Is(err, token.ErrStopped) {
		return problem.New(event.ShuttingDown, "The proxy is shutting down.").Because(err)
	}
	e, ok := errors.AsType[*token.Error](err)
	if ok && e.Outcome == event.TokenRefused {
		return problem.New(event.CredentialsRefused, "%s. %s", e.Reason, cure).Because(err)
	}
	p := problem.New(event.TokenUnavailable, "There is no token: %s. The proxy keeps trying.", strings.TrimSuffix(advice(err), ".")).Because(err)
	p.RetryAfter = time.Second
	if ok {
		p.RetryAfter = max(e.RetryAfter, time.Second)
	}
	return p
}

// advice says why the token endpoint gave no token, and where it could not be
// reached, what that means.
func advice(err error) string {
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		return "the token endpoint gave none"
	}
	if e.Status != 0 || e.Err == nil {
		return e.Reason
	}
	return e.Reason + ". " + upstream.Explain(e.Err).Detail
}

// explain is err with the advice, for the log.
func explain(err error) error {
	if e, ok := errors.AsType[*token.Error](err); ok && e.Status == 0 && e.Err != nil {
		cause := e.Err
		if p, ok := errors.AsType[*problem.Problem](cause); ok {
			cause = p.Err // the advice has the rest
		}
		return fmt.Errorf("%s (%w)", advice(err), cause)
	}
	return err
}

// connections returns the connections to one host of Mimecast's.
func connections(cfg config.Config) (*upstream.Connections, error) {
	roots, err := roots(cfg.CA)
	if err != nil {
		return nil, err
	}
	forward := (&httpproxy.Config{
		HTTPProxy: cfg.HTTPProxy.Reveal(), HTTPSProxy: cfg.HTTPSProxy.Reveal(), NoProxy: cfg.NoProxy,
	}).ProxyFunc()
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

// roots returns the system's authorities and those of ca; nil, which means the
// system's, where there are none.
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

// hosts returns the names that a request may call the proxy by.
func hosts(cfg config.Config) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, cfg.AllowedHosts...)
	sockets := 0
	for _, a := range cfg.Listen {
		if a.Network == "unix" {
			sockets++
		} else if u, err := url.Parse("http://" + a.Address); err == nil && u.Hostname() != "" {
			names = append(names, u.Hostname())
		}
	}
	if sockets == len(cfg.Listen) {
		// Who can open a socket is for its mode to say, and a browser can't. Beside
		// a port, any name would let web pages use that.
		names = append(names, "*")
	}
	return names
}
