package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/proxy"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

const (
	// DefaultCheckPath is the path that Check requests by default.
	DefaultCheckPath = mimecast.IdentityPath
	checkTimeout     = 30 * time.Second
)

// Step is one step of Check's report.
type Step struct {
	Step string `json:"step"`
	// Account is the name of the account that the step tests; empty for the
	// configuration.
	Account string `json:"account,omitempty"`
	OK      bool   `json:"ok"`
	// Detail is the result, or the problem and what to do about it.
	Detail string `json:"detail"`
	// Milliseconds is how long the step took.
	Milliseconds int64 `json:"duration_ms"`
	// Products is set by the products step only.
	Products []Product `json:"products,omitempty"`
}

// CheckOptions are the flags of Check.
type CheckOptions struct {
	// Path is the path that the request step gets, such as DefaultCheckPath. It must be set.
	Path string
	// JSON prints the report as JSON, after the last step.
	JSON bool
	// Products adds a step that finds which products the application may use. It runs if
	// all other steps of the account passed.
	Products bool
	// Account is the name of the account to test; empty: all accounts.
	Account string
}

// Check tests the configuration, and then for each account DNS, TLS, the credentials and one
// request. It prints one line per step, or JSON. An account's first failed step is its last.
// If a step failed, the error is an [*ExitError] with ExitFailed and no cause.
func (p Env) Check(ctx context.Context, o CheckOptions) error {
	path := o.Path
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	log.SetOutput(io.Discard) // net/http logs bytes from the peer there
	redactor := cmp.Or(p.Redactor, new(telemetry.Redactor))
	report := reporter{w: p.Stdout, asJSON: o.JSON, redactor: redactor}
	if !isTarget(path) {
		return &ExitError{ExitUsage, fmt.Errorf("--path %q is not a path such as %s", path, DefaultCheckPath)}
	}
	cfg, err := p.configure(p.Environ)
	if err != nil {
		return errors.Join(err, report.unconfigured(err))
	}
	redactSecrets(redactor, cfg)
	specs, err := accountsToCheck(cfg, o.Account)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	trusted, err := roots(cfg.CA)
	if err != nil {
		return &ExitError{ExitUsage, err}
	}
	if err := report.add(Step{Step: "configuration", OK: true, Detail: configurationDetail(cfg, specs)}); err != nil {
		return err
	}
	report.severalAccounts = len(specs) > 1
	for _, spec := range specs {
		redactor.Set("client secret of "+spec.name, spec.secret())
		c := &check{spec: spec, upstream: connections(cfg, trusted), path: path, redactor: redactor}
		err := c.run(ctx, &report, o.Products)
		c.upstream.CloseIdleConnections()
		if err != nil {
			return err
		}
	}
	if err := report.end(); err != nil {
		return err
	}
	if report.failed {
		return &ExitError{Code: ExitFailed}
	}
	return nil
}

// run runs the steps for one account until one fails. It returns an error only if the output
// fails.
func (c *check) run(ctx context.Context, report *reporter, products bool) error {
	for _, s := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{{"dns", c.dns}, {"tls", c.tls}, {"token", c.token}, {"request", c.request}} {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		began := time.Now()
		detail, err := s.do(ctx)
		cancel()
		if err != nil {
			detail = err.Error()
		}
		step := Step{Step: s.name, Account: c.spec.name, OK: err == nil, Detail: detail, Milliseconds: time.Since(began).Milliseconds()}
		if outputErr := report.add(step); outputErr != nil || err != nil {
			return outputErr
		}
	}
	if !products {
		return nil
	}
	return report.addProducts(c.products(ctx))
}

// accountsToCheck returns the account with a name, or all accounts if the name is empty.
func accountsToCheck(cfg config.Config, name string) ([]accountSpec, error) {
	var all []accountSpec
	if cfg.HasDefaultAccount() {
		all = append(all, defaultAccount(cfg))
	}
	if !cfg.Clients.IsZero() {
		all = append(all, convert(cfg.Clients.Current().Accounts, func(a config.Account) accountSpec {
			return fileAccount(a, new(atomic.Pointer[fileCredentials]))
		})...)
	}
	if name == "" {
		return all, nil
	}
	i := slices.IndexFunc(all, func(a accountSpec) bool { return a.name == name })
	if i < 0 {
		names := convert(all, func(a accountSpec) string { return a.name })
		return nil, fmt.Errorf("--account %s: there is no such account; choose one of: %s", name, strings.Join(names, ", "))
	}
	return all[i : i+1], nil
}

// isTarget reports whether path can be sent unchanged in origin-form (RFC 9112, section 3.2.1).
func isTarget(path string) bool {
	unsendable := func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }
	return strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && !strings.ContainsFunc(path, unsendable)
}

// reporter prints each step when it ends, or all of them as JSON at the end.
type reporter struct {
	w        io.Writer
	asJSON   bool
	redactor *telemetry.Redactor
	steps    []Step
	// severalAccounts adds the account name to each line.
	severalAccounts bool
	failed          bool
}

func (r *reporter) add(s Step) error {
	s.Detail = r.redactor.Redact(s.Detail)
	r.steps = append(r.steps, s)
	r.failed = r.failed || !s.OK
	if r.asJSON {
		return nil
	}
	verdict := "ok    "
	if !s.OK {
		verdict = "FAILED"
	}
	if r.severalAccounts {
		verdict += "  " + s.Account
	}
	_, err := fmt.Fprintf(r.w, "%s  %-13s  %s (%d ms)\n", verdict, s.Step, s.Detail, s.Milliseconds)
	return err
}

// unconfigured adds a configuration error to the JSON report. In a text report it does
// nothing, since the error goes to stderr.
func (r *reporter) unconfigured(why error) error {
	if !r.asJSON {
		return nil
	}
	return errors.Join(r.add(Step{Step: "configuration", Detail: why.Error()}), r.end())
}

func (r *reporter) end() error {
	ok := !r.failed
	switch {
	case !r.asJSON && ok:
		_, err := fmt.Fprintln(r.w, "All steps passed. Start the proxy with: mimecast-proxy")
		return err
	case !r.asJSON:
		return nil
	}
	e := json.NewEncoder(r.w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		OK    bool   `json:"ok"`
		Steps []Step `json:"steps"`
	}{ok, r.steps})
}

// check has the state that the steps for one account share.
type check struct {
	spec     accountSpec
	upstream *upstream.Connections
	path     string
	held     *token.Token
	redactor *telemetry.Redactor
}

func configurationDetail(cfg config.Config, specs []accountSpec) string {
	detail := fmt.Sprintf("%d accounts", len(specs))
	if len(specs) == 1 {
		detail = "base URL " + specs[0].baseURL.String()
	}
	for _, w := range cfg.Warnings {
		detail += "; warning: " + w
	}
	return detail
}

func (c *check) dns(ctx context.Context) (string, error) {
	if via, err := c.forwardProxy(); err != nil || via != "" {
		return "left to the corporate proxy " + via, err
	}
	host := c.spec.baseURL.Hostname()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", explained(ctx, err)
	}
	return host + " is " + strings.Join(addrs, ", "), nil
}

// forwardProxy returns the host of the corporate proxy for the base URL; empty: none.
func (c *check) forwardProxy() (string, error) {
	via, err := c.upstream.ForwardProxy(c.spec.baseURL)
	if err != nil {
		return "", fmt.Errorf("HTTPS_PROXY: %w", err)
	}
	if via == nil {
		return "", nil
	}
	return via.Host, nil
}

// tls requests the base URL without a token. Any response shows that a trusted connection
// can be made.
func (c *check) tls(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.spec.baseURL.String(), nil)
	if err != nil {
		return "", err
	}
	res, err := c.upstream.RoundTrip(req)
	if err != nil {
		return "", explained(ctx, err)
	}
	defer res.Body.Close()
	if res.TLS == nil {
		return "plain HTTP to this machine", nil
	}
	leaf := res.TLS.PeerCertificates[0]
	return fmt.Sprintf("%s, %s, certificate from %q until %s UTC",
		tls.VersionName(res.TLS.Version), res.Proto, leaf.Issuer.CommonName, leaf.NotAfter.UTC().Format(time.DateOnly)), nil
}

func (c *check) token(ctx context.Context) (string, error) {
	clock, err := c.fetchToken(ctx)
	if clock != "" {
		clock = "; warning: " + clock
	}
	if err != nil {
		return "", errors.New(tokenErrorDetail(err) + "; sent " + c.sentSecret() + clock)
	}
	return fmt.Sprintf("Mimecast issued a token for %v; sent %s%s", c.lifetime(), c.sentSecret(), clock), nil
}

// fetchToken fetches a token into c.held. It also returns a warning if this machine's clock
// is wrong.
func (c *check) fetchToken(ctx context.Context) (clock string, err error) {
	grant := &token.ClientCredentials{
		URL: c.spec.tokenURL.String(), ID: c.spec.id, Secret: c.spec.secret, Transport: c.upstream,
		OnClockSkew: func(ahead time.Duration) { clock = clockSkewWarning(ahead) },
	}
	held, err := grant.Fetch(ctx)
	if err == nil {
		c.held = held
		redactToken(c.redactor, c.spec.name, held)
	}
	return clock, err
}

// lifetime returns the lifetime of the token, rounded to seconds.
func (c *check) lifetime() time.Duration {
	return c.held.Expiry().Sub(c.held.Fetched()).Round(time.Second)
}

// sentSecret describes the secret by its length and source, to reveal a truncated secret or
// the wrong file.
func (c *check) sentSecret() string {
	return fmt.Sprintf("a secret of %d characters from %s", utf8.RuneCountInString(c.spec.secret().Reveal()), c.spec.origin)
}

// get requests c.path with the token.
func (c *check) get(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.spec.baseURL.String(), nil)
	if err != nil {
		return nil, err
	}
	req.URL = proxy.Target(c.spec.baseURL, c.path)
	req.Header.Set("Authorization", c.held.Authorization())
	res, err := c.upstream.RoundTrip(req)
	if err != nil {
		return nil, explained(ctx, err)
	}
	return res, nil
}

func (c *check) request(ctx context.Context) (string, error) {
	res, err := c.get(ctx)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	said := fmt.Sprintf("GET %s: status %d", c.path, res.StatusCode)
	if id := res.Header.Get("X-Request-Id"); id != "" {
		said += fmt.Sprintf(", Mimecast's request id %q", telemetry.Scrub(id))
	}
	switch {
	case res.StatusCode < http.StatusMultipleChoices:
		return said, nil
	case res.StatusCode == http.StatusForbidden:
		return "", fmt.Errorf("%s; the credentials work, but the application lacks the role or the product for this path", said)
	default:
		return "", errors.New(said)
	}
}

// explained returns err with advice on what to do about it.
func explained(ctx context.Context, err error) error {
	// The check's own timeout looks like a reset: report that no response came.
	p := upstream.Explain(err)
	if p.Code == event.UpstreamReset && ctx.Err() != nil {
		return fmt.Errorf("no response within %v", checkTimeout)
	}
	return fmt.Errorf("%s (%s)", p.Detail, telemetry.Scrub(p.Err.Error()))
}
