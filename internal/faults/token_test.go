package faults_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const (
	noToken      = "503 `token_unavailable` with `Retry-After`"
	noTokenSigns = "`token request failed` at warn; `token_requests_total{outcome=\"unavailable\"}`, `token_valid` 0"
	byItself     = "automatic: retries after 1 s, then after up to a minute"
)

var tokenRows = []row{
	{"down at start", noToken, noTokenSigns + "; not ready", byItself, deadAtStart(`token-dead`), ""},
	{"refuses connections at start", noToken, noTokenSigns + "; not ready", byItself, tokenRefusesConnections, ""},
	{"resets each connection", noToken, noTokenSigns, byItself, deadAtStart(`token-reset`), ""},
	{"down at renewal", "200 until the current token expires; then " + noToken, "`token request failed` at warn; stays ready", byItself, downAtRenewal, ""},
	{"slow", "200: the renewal happens before a request needs it", "`token_request_duration_seconds`", "at once", nil, "main.TestRenewalsCostNoRequestAnything"},
	{"500", noToken, noTokenSigns, byItself, unusable(simulator.Fault{Status: 500}, "status 500"), ""},
	{"429 with `Retry-After`", noToken + " of at least Mimecast's value", noTokenSigns, "automatic, after `Retry-After`", tokenLimited, ""},
	{"200 with Mimecast's `fail`", noToken, noTokenSigns, byItself, unusableAs("token-fail", "no access_token"), ""},
	{"HTML", noToken, noTokenSigns, byItself, unusableAs("token-html", "is not JSON"), ""},
	{"truncated response", noToken, noTokenSigns, byItself, unusableAs("token-truncated", "token"), ""},
	{"endless response", noToken + "; the proxy reads 64 KiB of it", noTokenSigns, byItself, unusableAs("token-endless", "cannot be read"), ""},
	{"redirect", noToken + "; the secret does not follow", noTokenSigns, byItself, unusableAs("token-redirect", "does not follow"), ""},
	{"another `token_type`", noToken, noTokenSigns, byItself, unusableAs("token-mac", "token_type"), ""},
	{"`token_type` in lower case", "200", "nothing", "at once", lifetime("token-lowercase", 1799), ""},
	{"CR and LF in the token", noToken, noTokenSigns, byItself, unusableAs("token-crlf", "RFC 6750"), ""},
	{"negative `expires_in`", noToken, noTokenSigns, byItself, unusableAs("token-negative-expiry", "negative"), ""},
	{"`expires_in` missing", "200; the proxy assumes 29 minutes", "`token_expiry_timestamp_seconds`", "at once", lifetime("token-no-expiry", 29*60), ""},
	{"`expires_in` zero", "200; the proxy assumes 29 minutes", "`token_expiry_timestamp_seconds`", "at once", lifetime("token-zero-expiry", 29*60), ""},
	{"`expires_in` as a string", "200", "`token_expiry_timestamp_seconds`", "at once", lifetime("token-string-expiry", 1799), ""},
	{"`expires_in` huge", "200; renewed after at most a day", "`token_expiry_timestamp_seconds`", "at once", lifetime("token-huge-expiry", 24*3600), ""},
	{"hangs forever", noToken + ", 30 s after the token request began", noTokenSigns, byItself, tokenHangs, ""},
	{"token expires while a request's body arrives", "200; an expired token is never sent", "a renewal", "at once", expiresMeanwhile, ""},
	{"down, and Mimecast rejects the token", noToken + "; the proxy does not use that token again", "`token request failed` at warn; `unauthorized_retries_total{outcome=\"renewal_failed\"}`", byItself, rejectedWithoutAnother(`token-dead`, 503, event.TokenUnavailable), ""},
	{"rejects the credentials, and Mimecast rejects the token", "502 `credentials_refused`; the proxy does not use that token again", "`token request failed` at error", "after you correct the credentials", rejectedWithoutAnother(`token-refused`, 502, event.CredentialsRefused), ""},
	{"rejects the credentials", "502 `credentials_refused`, which names the variables", "`token request failed` at error; `token_requests_total{outcome=\"refused\"}`", "within 5 s after you correct the file, without a restart", nil, "main.TestCorrectedSecretFileIsTakenUpWithoutARestart"},
}

// noTokenYet checks the response and the log while the proxy has no token.
func (p *proxy) noTokenYet(phrase string) {
	p.t.Helper()
	a := p.whoami()
	p.says(a, http.StatusServiceUnavailable, event.TokenUnavailable)
	if a.header.Get("Retry-After") == "" || !strings.Contains(a.body, phrase) {
		p.t.Errorf("%v", a)
	}
	p.logs(`"msg":"token request failed"`, `"level":"warn"`)
	p.counts(`token_requests_total{outcome="unavailable",trigger="startup"}`, 1)
	if p.Metric("mimecast_proxy_token_valid") != 0 || p.Ready() {
		p.t.Error("it claims to have a token")
	}
}

// unusable has a token endpoint that first returns no usable token, and then does.
func unusable(f simulator.Fault, phrase string) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, simulator.Options{})
		f.Path = "/oauth/token"
		w.sim.AddFault(f)
		p := begin(t, w.environ(t)).awaitServing()
		p.noTokenYet(phrase)
		w.sim.ClearFaults()
		p.awaitReady().fine()
	}
}

func unusableAs(name, phrase string) func(*testing.T) {
	f, err := simulator.NamedFault(name)
	if err != nil {
		panic(err)
	}
	return unusable(f, phrase)
}

func deadAtStart(name string) func(*testing.T) { return unusableAs(name, "There is no token") }

func tokenRefusesConnections(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	address, relayTo := closedPort(t)
	p := begin(t, w.environ(t, "MIMECAST_TOKEN_URL=https://"+address+"/oauth/token")).awaitServing()
	p.noTokenYet("cannot reach the token endpoint")
	relayTo(w)
	p.awaitReady().fine()
}

func downAtRenewal(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{TokenTTL: 4 * time.Second})
	p := w.serve(t)
	w.fault(t, "token-dead")
	expiry := p.Metric("mimecast_proxy_token_expiry_timestamp_seconds")
	var a answer
	for a = p.whoami(); a.status == 200 || a.status == 401; a = p.whoami() {
		time.Sleep(5 * time.Millisecond)
	}
	const rounding = .001 // seconds
	if now := float64(time.Now().UnixNano()) / 1e9; now < expiry-rounding {
		t.Errorf("the token was given up %.3f s early", expiry-now)
	}
	p.says(a, http.StatusServiceUnavailable, event.TokenUnavailable)
	p.logs(`"msg":"token request failed"`, `"trigger":"expiry"`)
	if !p.Ready() {
		t.Error("out of service for what a restart cannot fix")
	}
	if n := w.sim.Counts().Statuses[401]; n > 1 { // one may expire in transit
		t.Errorf("Mimecast saw %d dead tokens", n)
	}
	w.sim.ClearFaults()
	program.Await(t, "the recovery", func() bool { return p.whoami().status == 200 })
}

func tokenLimited(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	w.fault(t, "token-429", once) // Retry-After: 2
	p := begin(t, w.environ(t)).awaitServing()
	p.says(p.whoami(), http.StatusServiceUnavailable, event.TokenUnavailable)
	p.awaitReady().fine()
	var asked []time.Time
	for _, r := range w.sim.Requests() {
		if r.Target == "/oauth/token" {
			asked = append(asked, r.Time)
		}
	}
	if len(asked) != 2 || asked[1].Sub(asked[0]) < 2*time.Second {
		t.Errorf("asked at %v", asked)
	}
}

// lifetime has tokens with an unusual expires_in, and checks the resulting lifetime.
func lifetime(name string, seconds float64) func(*testing.T) {
	return func(t *testing.T) {
		w := newWorld(t, simulator.Options{})
		w.fault(t, name)
		began := time.Now()
		p := w.serve(t)
		p.fine()
		expiry := p.Metric("mimecast_proxy_token_expiry_timestamp_seconds")
		early, late := float64(began.Unix())+seconds-1, float64(time.Now().Unix())+seconds+1
		if expiry < early || expiry > late {
			t.Errorf("it expires at %.0f, want between %.0f and %.0f", expiry, early, late)
		}
		for _, r := range w.sim.Requests() {
			if r.Target == "/identity/whoami" && !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
				t.Errorf("sent as %.10q", r.Header.Get("Authorization"))
			}
		}
	}
}

func tokenHangs(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	w.fault(t, "token-hang")
	began := time.Now()
	p := begin(t, w.environ(t)).awaitServing()
	a := p.whoami()
	p.says(a, http.StatusServiceUnavailable, event.TokenUnavailable)
	if took := time.Since(began); took < 25*time.Second || !strings.Contains(a.body, "token endpoint") {
		t.Errorf("after %v: %v", took, a)
	}
	w.sim.ClearFaults()
	p.awaitReady().fine()
}

func TestClientThatLeavesDoesNotEndTheTokenRequest(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	answer := make(chan struct{})
	w.sim.AddFault(simulator.Fault{Path: "/oauth/token", Until: answer, Count: 1})
	p := begin(t, w.environ(t)).awaitServing()
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() { defer close(left); p.do(ctx, "GET", "/identity/whoami", nil) }()
	p.counts("requests_in_flight", 1)
	cancel()
	<-left
	close(answer)
	p.awaitReady().fine()
	if n := w.sim.TokenRequests(); n != 1 {
		t.Errorf("%d token requests", n)
	}
}

// expiresMeanwhile sends bodies that take longer to arrive than a token lives. They are
// buffered with and without Content-Length, and streamed.
func expiresMeanwhile(t *testing.T) {
	suite.Slow(t)
	const ttl, takes = 8 * time.Second, 10 * time.Second
	w := newWorld(t, simulator.Options{TokenTTL: ttl})
	p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB")
	var all sync.WaitGroup
	for _, c := range []struct {
		size  int
		known bool
	}{{1000, true}, {1000, false}, {60_000, true}, {100_000, true}, {100_000, false}} {
		all.Go(func() {
			body := &slowly{left: c.size, pieces: 50, pause: takes / 50}
			req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL+"/_simulator/echo", body)
			if err != nil {
				t.Error(err)
				return
			}
			req.ContentLength = -1
			if c.known {
				req.ContentLength = int64(c.size)
			}
			res, err := p.Client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || !strings.Contains(string(text), sum(make([]byte, c.size))) {
				t.Errorf("%+v: %d %.200s %v", c, res.StatusCode, text, err)
			}
		})
	}
	all.Wait()
	if n := w.sim.Counts().Statuses[401]; n > 0 {
		t.Errorf("Mimecast saw %d expired tokens", n)
	}
}

// slowly is a body of zeros that arrives in pieces.
type slowly struct {
	left, pieces int
	pause        time.Duration
}

func (s *slowly) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.pause)
	n := s.left
	if s.pieces > 1 {
		n = max(s.left/s.pieces, 1)
	}
	s.pieces--
	n = min(n, len(b))
	clear(b[:n])
	s.left -= n
	return n, nil
}

// rejectedWithoutAnother has Mimecast reject a token while the token endpoint fails.
func rejectedWithoutAnother(fault string, status int, code event.Code) func(*testing.T) {
	return func(t *testing.T) {
		for _, reason := range []string{"token_expired", "token_verification_failed"} {
			w := newWorld(t, simulator.Options{})
			p := w.serve(t)
			w.fault(t, fault)
			w.sim.AddFault(simulator.Fault{Status: 401, Code: reason})
			before := len(w.api())
			var all sync.WaitGroup
			for range 10 { // first concurrently, then one after the other
				all.Go(func() { p.rejected(status, code) })
			}
			all.Wait()
			if t.Failed() {
				return
			}
			sent := len(w.api()) - before
			for range 10 {
				p.rejected(status, code)
			}
			if n := len(w.api()) - before; sent > 10 || n != sent {
				t.Errorf("%s: a rejected token was sent %d times by the first 10 requests, and %d times after", reason, sent, n-sent)
			}
			w.sim.ClearFaults()
			if fault == "token-dead" {
				program.Await(t, "the recovery", func() bool { return p.whoami().status == 200 })
			}
		}
	}
}

func (p *proxy) rejected(status int, code event.Code) {
	p.t.Helper()
	a := p.whoami()
	p.says(a, status, code)
	if status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		p.t.Errorf("no Retry-After: %v", a)
	}
}

// api returns the requests to the API, except token requests.
func (w *world) api() (list []simulator.Request) {
	for _, r := range w.sim.Requests() {
		if r.Target != "/oauth/token" {
			list = append(list, r)
		}
	}
	return list
}
