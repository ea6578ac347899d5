package app

import (
	"cmp"
	"context"
	"log"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"mimecast-proxy/api1"
	"mimecast-proxy/batch"
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/health"
	"mimecast-proxy/proxy"
	"mimecast-proxy/quota"
	"mimecast-proxy/telemetry"
)

// components are the parts of a running proxy, without its listeners.
type components struct {
	accounts *accounts
	download *batch.Transport // for batch files
	cfg      config.Config
	tel      *telemetry.Telemetry
	health   *health.Monitor
	redactor *telemetry.Redactor
	guard    *guard.Guard
	quota    *quota.Model
	api1Only api1Warnings
	// reread delivers the signals to read all files at once; nil: there are none.
	reread   <-chan os.Signal
	draining atomic.Bool
}

// assemble builds the components. Its errors are [*ExitError]s with ExitUsage, since the
// configuration causes them.
func (p Env) assemble(cfg config.Config) (*components, error) {
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
	a := &accounts{cfg: cfg, redactor: redactor, drainInterval: time.Second}
	c := &components{accounts: a, cfg: cfg, redactor: redactor, reread: p.Reread}
	c.health = health.New(time.Now(), c.facts)
	tel, err := p.newTelemetry(cfg, routes, c)
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	trusted, err := roots(cfg.CA)
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	g, err := guard.New(guard.Policy{
		Hosts: hosts(cfg), Origins: cfg.AllowedOrigins,
		Routes: cfg.Allow, ReportOnly: cfg.AllowReport, TokenStub: cfg.TokenStub, MaxRequests: cfg.MaxRequests,
		MaxHeaderFields: cfg.MaxHeaderFields, RouteAs: batchListing(cfg), Tunnel: tunnelAuthorization, TunnelPassword: !p.tunnelPassword.IsZero(),
		Trace: guard.Trace{Client: tel.Client, Limit: tel.Limit, Denied: tel.Denied, Route: tel.Route},
	})
	if err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	model := quota.New(quota.Options{
		Wait: cfg.RateLimitWait, Pace: paces[cfg.RateLimitPace],
		Trace: quota.Trace{Held: tel.RateLimitWait, Called: tel.QuotaCalled, Paced: tel.Paced},
	})
	tel.ShowQuotas(model.Snapshot)
	a.tel, a.setClients, a.forget, a.roots = tel, g.SetClients, model.Forget, trusted
	if err := a.apply(directoryOf(cfg)); err != nil {
		return nil, &ExitError{ExitUsage, err}
	}
	cfg.Clients.OnChange(a.apply)
	c.download, c.cfg, c.tel, c.guard, c.quota = newDownload(cfg, trusted), cfg, tel, g, model
	return c, nil
}

// paces maps the values of PROXY_RATE_LIMIT_PACE to modes.
var paces = map[string]quota.Pace{"off": quota.Off, "observe": quota.Observe, "on": quota.On}

// newTelemetry returns the log and the metrics. It redirects the standard logger to the log.
func (p Env) newTelemetry(cfg config.Config, routes []string, c *components) (*telemetry.Telemetry, error) {
	version, revision, _ := Build()
	tel, err := telemetry.New(telemetry.Options{
		Output: p.Stderr, Redactor: c.redactor,
		Level: cfg.LogLevel, Format: cfg.LogFormat, Terminal: p.Terminal,
		Version: version, Revision: revision, Routes: routes, Clients: !cfg.Clients.IsZero(),
		MaxRequests: int64(cfg.MaxRequests), ReplayMemory: cfg.ReplayMemory,
		Tokens: c.accounts.tokens, Ended: c.ended, Health: c.health.Health, State: c.health.State,
	})
	if err != nil {
		return nil, err
	}
	surviveBrokenPipes() // if stderr is closed, the proxy must go on
	// net/http writes some errors to the standard logger only. They may contain bytes from
	// the peer.
	log.SetFlags(0)
	log.SetOutput(tel.StdLog("debug").Writer())
	return tel, nil
}

// ended takes in how a request ended.
func (p *components) ended(o event.Outcome) {
	p.health.Record(o)
	if call, ok := p.api1Only.add(o, p.cfg.API1); ok {
		p.tel.Logger().Warn("unsupported API 1.0 call", "path", call.Path, "replacement", call.Replacement)
	}
}

// handler returns the handler of the data port: all layers of a request, in order. No layer
// is added anywhere else.
func (p *components) handler() http.Handler {
	trace := proxy.Trace{Sent: p.tel.Sent, Unauthorized: p.tel.Unauthorized, Retried: p.tel.Retried, Answered: p.tel.Answered, Failed: p.tel.Failed}
	budget := proxy.NewBudget(p.cfg.ReplayMemory, p.tel.ReplayBytes)
	return stack(
		p.tel.Wrap,                   // record, count and log
		p.guard.Wrap,                 // reject forbidden requests; set account and client
		batch.Wrap(p.batchOptions()), // rewrite batch URLs to the proxy; download their files
		api1.Wrap(p.api1Options()),   // serve calls of API 1.0
	)(proxy.New(proxy.Options{ // ReverseProxy: target and headers
		Transport: stack(
			proxy.Replay(p.cfg.ReplayLimit, budget), // make the body repeatable
			p.quota.Wrap,                            // pace calls; on 429, wait and resend
		)(proxy.Authenticate(trace)), // add the token; on 401, renew and resend; send on the account's connections
		Trace: trace, ErrorLog: p.tel.StdLog("warn"),
	}))
}

// api1Options returns the options for API 1.0 calls.
func (p *components) api1Options() api1.Options {
	log := p.tel.Logger()
	return api1.Options{
		Translate: p.cfg.API1,
		Download:  p.download,
		// Each one buffers a page of events: usually 100 KiB, at most 8 MiB.
		MaxTranslations: max(4, dataLimits(p.cfg).MaxPartial/16),
		Trace: api1.Trace{
			StartedOver: func(context.Context) {
				log.Info("get-siem-logs restarted", "detail", "The token is not from this proxy, so events start one day back.")
			},
			Translated: func(_ context.Context, path string, events, skipped int) {
				if skipped > 0 {
					log.Warn("batch file lines skipped", "path", path, "lines", skipped, "events", events)
				}
			},
			Failed: p.tel.Failed,
		},
	}
}

// stack combines layers into one. The first layer is the outermost.
func stack[T any](layers ...func(T) T) func(T) T {
	return func(inner T) T {
		for _, layer := range slices.Backward(layers) {
			inner = layer(inner)
		}
		return inner
	}
}
