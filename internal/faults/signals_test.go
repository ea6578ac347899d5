package faults_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// outage is a fault, and what the signals must show.
type outage struct {
	name string
	// serve starts a proxy in front of a world. begin injects the fault, if it is not there
	// already, and end removes it.
	serve      func(t *testing.T) (p *proxy, begin, end func())
	request    func(p *proxy) answer // nil means whoami
	state      event.HealthState
	component  event.Component
	causes     []event.Cause
	noRequests bool // the proxy recovers without any
	slow       bool // similar to another outage, so skipped with -short
}

var outages = []outage{
	{name: "token endpoint responds 503", serve: atStart("token-dead"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true},
	{name: "token endpoint resets", serve: atStart("token-reset"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true, slow: true},
	{name: "token endpoint limits", serve: atStart("token-429"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true, slow: true},
	{name: "token endpoint responds HTML", serve: atStart("token-html"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true, slow: true},
	{name: "token endpoint cannot be reached", serve: tokenUnreachable, state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true, slow: true},
	{name: "token endpoint hangs", serve: tokenIsLate, request: noRequest, state: event.HealthDegraded, component: event.ComponentMimecast, causes: []event.Cause{event.CauseTokenPending}, noRequests: true},
	{name: "token revoked and token endpoint responds 503", serve: later(func(w *world) {
		w.sim.RevokeTokens()
		w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Status: 503})
	}), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"token_unavailable"}, noRequests: true},
	{name: "credentials are refused", serve: credentialsRefused, state: event.HealthDown, component: event.ComponentCredentials, causes: []event.Cause{"credentials_refused"}, noRequests: true, slow: true},
	{name: "401 whatever the token", serve: named("401"), state: event.HealthDown, component: event.ComponentCredentials, causes: []event.Cause{"mimecast_unauthorized"}, slow: true},
	{name: "403", serve: named("403"), state: event.HealthDown, component: event.ComponentCredentials, causes: []event.Cause{"mimecast_forbidden"}, slow: true},
	{name: "404", serve: answers(404), state: event.HealthDegraded, component: event.ComponentClient, causes: []event.Cause{"request_refused"}, slow: true},
	{name: "429", serve: named("429"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"mimecast_rate_limited"}, slow: true},
	{name: "500", serve: named("500"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"mimecast_error"}},
	{name: "503", serve: named("503"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"mimecast_error"}, slow: true},
	{name: "timeouts", serve: timesOut, state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"upstream_timeout"}, slow: true},
	{name: "reset before the response", serve: named("reset-request"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"upstream_reset"}, slow: true},
	{name: "reset within the response", serve: named("reset-body"), state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"mimecast_truncated"}, slow: true},
	{name: "refuses connections", serve: refused, state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"upstream_unreachable"}, slow: true},
	{name: "TLS", serve: untrusted, state: event.HealthDown, component: event.ComponentMimecast, causes: []event.Cause{"upstream_tls"}, slow: true},
	{name: "rejected clients", serve: justServe(), request: wrongHost, state: event.HealthDegraded, component: event.ComponentClient, causes: []event.Cause{"host_not_allowed"}},
	{name: "overload", serve: overload, state: event.HealthDown, component: event.ComponentProxy, causes: []event.Cause{"too_busy"}, slow: true},
}

// later has a world that gets a fault once the proxy serves.
func later(fault func(*world), more ...string) func(*testing.T) (*proxy, func(), func()) {
	return func(t *testing.T) (*proxy, func(), func()) {
		w := newWorld(t, simulator.Options{})
		return w.serve(t, more...), func() { fault(w) }, w.sim.ClearFaults
	}
}

func named(name string) func(*testing.T) (*proxy, func(), func()) {
	return later(func(w *world) {
		f, err := simulator.NamedFault(name)
		if err != nil {
			panic(err)
		}
		w.sim.AddFault(f)
	})
}

func answers(status int) func(*testing.T) (*proxy, func(), func()) {
	return later(func(w *world) { w.sim.AddFault(simulator.Fault{Status: status}) })
}

func justServe() func(*testing.T) (*proxy, func(), func()) { return later(func(*world) {}) }

func timesOut(t *testing.T) (*proxy, func(), func()) {
	return later(func(w *world) { w.sim.AddFault(simulator.Fault{Delay: simulator.Forever}) }, "PROXY_RESPONSE_TIMEOUT=500ms")(t)
}

// atStart has a token endpoint that fails from the start.
func atStart(name string) func(*testing.T) (*proxy, func(), func()) {
	return func(t *testing.T) (*proxy, func(), func()) {
		w := newWorld(t, simulator.Options{})
		w.fault(t, name)
		return begin(t, w.environ(t)).awaitServing(), func() {}, w.sim.ClearFaults
	}
}

// tokenIsLate has a token endpoint that does not respond until the end.
func tokenIsLate(t *testing.T) (*proxy, func(), func()) {
	w := newWorld(t, simulator.Options{})
	give := make(chan struct{})
	w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Until: give})
	return begin(t, w.environ(t)).awaitServing(), func() {}, func() { close(give) }
}

func tokenUnreachable(t *testing.T) (*proxy, func(), func()) {
	w := newWorld(t, simulator.Options{})
	address, relayTo := closedPort(t)
	return begin(t, w.environ(t, "MIMECAST_TOKEN_URL=https://"+address+"/oauth/token")).awaitServing(), func() {}, func() { relayTo(w) }
}

func credentialsRefused(t *testing.T) (*proxy, func(), func()) {
	w := newWorld(t, simulator.Options{})
	path := filepath.Join(t.TempDir(), "client-secret")
	put(t, path, "wrong")
	p := begin(t, w.environ(t, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)).awaitServing()
	return p, func() {}, func() { put(t, path, simulator.DefaultClientSecret) }
}

func refused(t *testing.T) (*proxy, func(), func()) {
	w := newWorld(t, simulator.Options{})
	address, relayTo := closedPort(t)
	return w.serve(t, "MIMECAST_BASE_URL=https://"+address), func() {}, func() { relayTo(w) }
}

func untrusted(t *testing.T) (*proxy, func(), func()) {
	w, other := newWorld(t, simulator.Options{}), newWorld(t, simulator.Options{})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	put(t, roots, string(w.sim.CA))
	p := w.serve(t, "MIMECAST_BASE_URL="+other.sim.URL, "MIMECAST_CA_FILE="+roots)
	other.sim.AddFault(simulator.Fault{Status: 200, Body: "{}"}) // respond with 200 although it did not issue the token
	return p, func() {}, func() { put(t, roots, string(w.sim.CA)+string(other.sim.CA)) }
}

// overload has a proxy whose only request slot is taken.
func overload(t *testing.T) (*proxy, func(), func()) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_MAX_REQUESTS=1")
	give := make(chan struct{})
	ended := make(chan answer, 1)
	return p, func() {
			w.sim.AddFault(simulator.Fault{Path: "/_simulator/", Until: give, Count: 1})
			go func() { ended <- p.get("/_simulator/echo") }()
			program.Await(t, "the request that takes the place", func() bool { return len(w.api()) > 0 })
		}, func() {
			close(give)
			<-ended
		}
}

func noRequest(*proxy) answer { return answer{} }

func wrongHost(p *proxy) answer {
	a, _, err := p.Do("GET", "/identity/whoami", nil, "Host", "elsewhere.example")
	if err != nil {
		return answer{err: err}
	}
	return answer{status: a.StatusCode}
}

const (
	// recoveryTime is how soon after the recovery the health must be ok.
	recoveryTime = 5 * time.Second
	lowRate      = 500 * time.Millisecond
	outageSize   = 8
)

func TestSignalsAgreeFromTheFaultToTheRecovery(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			if o.slow {
				suite.Slow(t)
			}
			t.Parallel()
			p, begin, end := o.serve(t)
			request := o.request
			if request == nil {
				request = (*proxy).whoami
			}
			begin()
			var all sync.WaitGroup
			for range outageSize {
				all.Go(func() { request(p) })
			}
			all.Wait()
			w := p.Watcher()
			p.awaitHealth(w, o.state, o.component, o.causes)
			if o.causes[0] != event.CauseTokenPending { // the initial state is not a change
				p.logs(`"msg":"health changed"`, fmt.Sprintf(`"state":%q`, o.state))
			}
			if o.request == nil {
				request(p)
				p.hasLevel(o.state, o.component)
			}
			end()
			p.recovers(w, o)
		})
	}
}

// awaitHealth waits until all signals agree on the given health.
func (p *proxy) awaitHealth(w *program.Watcher, state event.HealthState, component event.Component, causes []event.Cause) (s program.Signals) {
	p.t.Helper()
	program.AwaitWithin(p.t, recoveryTime, fmt.Sprintf("%s, %s, %s", state, component, causes), func() bool {
		s = p.agreed(w)
		return s.Health.State == state && s.Health.Component == component && slices.Contains(causes, s.Health.Cause)
	})
	return s
}

// agreed reads the signals and checks that they agree.
func (p *proxy) agreed(w *program.Watcher) program.Signals {
	p.t.Helper()
	s, err := w.Read(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if d := s.Disagreement(); d != "" {
		p.t.Error(d)
	}
	return s
}

// hasLevel checks the level of a request's log line: error if the health is down and the
// client is not at fault. Only some rejected requests have a line.
func (p *proxy) hasLevel(state event.HealthState, component event.Component) {
	p.t.Helper()
	level := "info"
	if component != event.ComponentClient && state == event.HealthDown {
		level = "error"
	}
	p.logs(`"msg":"request"`, fmt.Sprintf(`"level":%q`, level))
}

// recovers waits until a request succeeds or the token arrives. The health must be ok soon
// after, in all signals.
func (p *proxy) recovers(w *program.Watcher, o outage) {
	p.t.Helper()
	recovered := func() bool { return p.whoami().status == http.StatusOK }
	if o.noRequests {
		recovered = func() bool { return p.Metric(`mimecast_proxy_token_valid{account="default"}`) == 1 }
	}
	program.Await(p.t, "the recovery", recovered)
	requests := time.NewTicker(lowRate)
	defer requests.Stop()
	var s program.Signals
	program.AwaitWithin(p.t, recoveryTime, "ok", func() bool {
		select {
		case <-requests.C:
			if !o.noRequests {
				p.whoami()
			}
		default:
		}
		s = p.agreed(w)
		return s.Health.State == event.HealthOK
	})
	p.recovered(&s, o)
}

// isOKSoon checks that all signals show ok soon after a fault was removed, with few
// requests.
func (p *proxy) isOKSoon(w *program.Watcher) {
	p.t.Helper()
	var s program.Signals
	program.AwaitWithin(p.t, recoveryTime, "ok", func() bool {
		p.fine()
		s = p.agreed(w)
		return s.Health.State == event.HealthOK
	})
}

// recovered checks how the signals show the recovery.
func (p *proxy) recovered(s *program.Signals, o outage) {
	p.t.Helper()
	p.logs(`"msg":"health changed"`, `"state":"ok"`)
	r := s.Health.Recovered
	if o.causes[0] == event.CauseTokenPending {
		return
	}
	if r == nil || r.State != o.state || r.Component != o.component || !slices.Contains(o.causes, r.Cause) {
		p.t.Errorf("recovered: %+v", r)
	}
	if !strings.Contains(s.Page, "Recovered") {
		p.t.Error("the page says nothing of the recovery")
	}
}

// One failed request on an idle proxy must not change its health.
func TestOneFailureChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	w.fault(t, "503", once)
	p.whoami()
	s := p.awaitHealth(p.Watcher(), event.HealthOK, "", []event.Cause{""})
	if len(s.Health.History) > 0 && s.Health.History[0].Cause != "" || s.Health.Failed != 1 {
		t.Errorf("%+v", s.Health)
	}
	p.logs(`"msg":"request"`, `"level":"warn"`, `"status":503`)
}
