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
	// DefaultCheckPath is asked by Check where nothing else is said.
	DefaultCheckPath = mimecast.IdentityPath
	checkTimeout     = 30 * time.Second
)

// Step is one line of Check's report.
type Step struct {
	Step string `json:"step"`
	// Account is the name of the account that the step is about; empty if it is about
	// none.
	Account string `json:"account,omitempty"`
	OK      bool   `json:"ok"`
	// Detail says what was found, or what is wrong and what to do.
	Detail string `json:"detail"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"duration_ms"`
	// Products are of the step that asks for them alone.
	Products []Product `json:"products,omitempty"`
}

// CheckOptions say what Check does in addition to its usual steps, and how it reports.
type CheckOptions struct {
	// Path is asked by the last of the usual steps, such as DefaultCheckPath.
	Path string
	// JSON reports for machines.
	JSON bool
	// Products asks, once all steps passed, which products the application may use.
	Products bool
	// Account is the name of the only account to test; empty: all are tested.
	Account string
}

// Check tests, one after the other, the configuration, and for each account DNS, TLS, the
// credentials and one request. It prints a line a step, or JSON. The first step that fails
// is the account's last.
func (p Env) Check(ctx context.Context, o CheckOptions) error {
	path := o.Path
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	log.SetOutput(io.Discard) // net/http writes a peer's bytes to it
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

// run makes the steps of one account until one fails. The error is that of the output.
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

// accountsToCheck returns all accounts of a configuration, or that of the name.
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

// isTarget reports whether path can be sent as it is (RFC 9112, section 3.2.1).
func isTarget(path string) bool {
	unsendable := func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }
	return strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && !strings.ContainsFunc(path, unsendable)
}

// reporter prints steps as they come, or all of them as JSON at the end.
type reporter struct {
	w        io.Writer
	asJSON   bool
	redactor *telemetry.Redactor
	steps    []Step
	// severalAccounts makes lines name their account.
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

// unconfigured reports to machines what people read on stderr.
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

// check holds what its steps share.
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

// forwardProxy returns the host of the corporate proxy on the way, if any.
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

// tls asks for the bare base URL without a token: any response at all shows that
// a trusted connection can be made.
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

// fetchToken fetches the token that the check holds. It also returns a warning if this
// machine's clock is wrong.
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

// lifetime is that of the token.
func (c *check) lifetime() time.Duration {
	return c.held.Expiry().Sub(c.held.Fetched()).Round(time.Second)
}

// sentSecret says how long the secret is and where it comes from, which shows a
// truncated one and the wrong file.
func (c *check) sentSecret() string {
	return fmt.Sprintf("a secret of %d characters from %s", utf8.RuneCountInString(c.spec.secret().Reveal()), c.spec.origin)
}

// get requests the check's path with its token.
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

// explained is err with what to do about it.
func explained(ctx context.Context, err error) error {
	// A deadline of the check's own is the upstream's silence.
	p := upstream.Explain(err)
	if p.Code == event.UpstreamReset && ctx.Err() != nil {
		return fmt.Errorf("no response within %v", checkTimeout)
	}
	return fmt.Errorf("%s (%s)", p.Detail, telemetry.Scrub(p.Err.Error()))
}
