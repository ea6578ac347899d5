package guard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a guard on a real listener, in front of a handler that records the requests that
// passed.
type gate struct {
	t   *testing.T
	srv *httptest.Server
	// guard is the guard under test.
	guard *guard.Guard
	next  http.HandlerFunc // responds as Mimecast; nil means 200

	mu     sync.Mutex
	passed []string // request targets that passed
	denied []string // "code", or "code passed"
	routes []string
}

func newGate(t *testing.T, p guard.Policy) *gate {
	t.Helper()
	g := &gate{t: t}
	p.Trace = guard.Trace{
		Denied: func(_ context.Context, reason event.Code, passed bool) {
			if passed {
				reason += " passed"
			}
			g.note(func() { g.denied = append(g.denied, string(reason)) })
		},
		Route: func(_ context.Context, pattern string) { g.note(func() { g.routes = append(g.routes, pattern) }) },
	}
	guarded, err := newGuard(p)
	if err != nil {
		t.Fatal(err)
	}
	g.guard = guarded
	g.srv = httptest.NewUnstartedServer(guarded.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.note(func() { g.passed = append(g.passed, r.RequestURI) })
		if g.next != nil {
			g.next(w, r)
		}
	})))
	g.srv.Config.DisableGeneralOptionsHandler = true
	g.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	g.srv.Start()
	t.Cleanup(g.srv.Close)
	return g
}

func (g *gate) note(f func()) { g.mu.Lock(); defer g.mu.Unlock(); f() }

// through returns the targets that passed since its last call.
func (g *gate) through() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	passed := g.passed
	g.passed = nil
	return passed
}

// reported returns the rejections reported since its last call.
func (g *gate) reported() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	denied := g.denied
	g.denied = nil
	return denied
}

// answer is a response.
type answer struct {
	status int
	code   string // the proxy's error code, if any
	header http.Header
	body   string
}

// raw sends bytes unchanged and returns the final response.
func (g *gate) raw(request string) answer {
	g.t.Helper()
	conn, err := net.Dial("tcp", g.srv.Listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		g.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	for br := bufio.NewReader(conn); ; {
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			g.t.Fatalf("%q: %v", request, err)
		}
		if res.StatusCode >= 200 {
			body, err := io.ReadAll(res.Body)
			if err != nil {
				g.t.Fatal(err)
			}
			return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(body)}
		}
	}
}

// ask sends a request with the given headers. Without a Host among them, it adds an allowed
// one.
func (g *gate) ask(method, target string, headers ...string) answer {
	g.t.Helper()
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host:") }) {
		headers = append(slices.Clone(headers), "Host: localhost:8080")
	}
	return g.raw(method + " " + target + " HTTP/1.1\r\n" + strings.Join(headers, "\r\n") + "\r\nConnection: close\r\n\r\n")
}

// rejects sends a request and checks the whole rejection: status, code, body and report.
// The request must not reach the handler.
func (g *gate) rejects(code event.Code, method, target string, headers ...string) answer {
	g.t.Helper()
	g.reported()
	a := g.ask(method, target, headers...)
	var envelope struct {
		Fail []struct{ Code, Message string }
	}
	if method != "HEAD" {
		if err := json.Unmarshal([]byte(a.body), &envelope); err != nil || len(envelope.Fail) != 1 || envelope.Fail[0].Code != string(code) || envelope.Fail[0].Message == "" {
			g.t.Errorf("%s %s %q: body %q", method, target, headers, a.body)
		}
	}
	if a.code != string(code) || a.status != code.Status() {
		g.t.Errorf("%s %s %q: %d %q, want %s", method, target, headers, a.status, a.code, code)
	}
	if passed := g.through(); passed != nil {
		g.t.Errorf("%s %s %q got through", method, target, headers)
	}
	if denied := g.reported(); !slices.Equal(denied, []string{string(code)}) {
		g.t.Errorf("%s %s %q: reported %v, want %s once", method, target, headers, denied, code)
	}
	return a
}

// passes sends a request and checks that its target reached the handler unchanged.
func (g *gate) passes(method, target string, headers ...string) answer {
	g.t.Helper()
	a := g.ask(method, target, headers...)
	if passed := g.through(); !slices.Equal(passed, []string{target}) {
		g.t.Errorf("%s %s %q: %d %s, and %q got through", method, target, headers, a.status, a.body, passed)
	}
	return a
}

// never sends a request that must not reach the handler. Either the guard or net/http may
// reject it.
func (g *gate) never(request string) {
	g.t.Helper()
	a := g.raw(request)
	if passed := g.through(); passed != nil || a.status < 400 {
		g.t.Errorf("%q: %d, and %q got through", request, a.status, passed)
	}
}

// newGuard returns a guard. If the policy has no clients, anyone may call it.
func newGuard(p guard.Policy) (*guard.Guard, error) {
	if p.Clients == nil {
		p.Clients = keyed()
	}
	return guard.New(p)
}

// keyed returns PROXY_API_KEY's client with these keys.
func keyed(keys ...string) []guard.Client { return []guard.Client{{Keys: keysOf(keys...)}} }

func (g *gate) setClients(clients []guard.Client) {
	g.t.Helper()
	if err := g.guard.SetClients(clients); err != nil {
		g.t.Error(err)
	}
}

func keysOf(all ...string) []secret.Text {
	var texts []secret.Text
	for _, s := range all {
		texts = append(texts, secret.New(s))
	}
	return texts
}

func TestQuestionsAreAskedInTheContractsOrder(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: keyed("k"), Routes: []string{"GET /siem/"}})
	const (
		host   = "Host: evil.example"
		origin = "Origin: https://evil.example"
		socket = "Upgrade: websocket"
		key    = "X-Proxy-Key: k"
	)
	g.rejects(event.BadRequestTarget, "POST", "//x", host, origin, socket)
	g.rejects(event.HostNotAllowed, "POST", "/x", host, origin, socket)
	g.rejects(event.OriginNotAllowed, "POST", "/x", origin, socket)
	g.rejects(event.APIKeyRequired, "POST", "/x", socket)
	g.rejects(event.UpgradeNotSupported, "POST", "/x", key, socket)
	g.rejects(event.RouteNotAllowed, "POST", "/x", key)
	g.passes("GET", "/siem/x", key)
}

func TestPolicyWithNothingInItLetsLoopbackCallEverything(t *testing.T) {
	g := newGate(t, guard.Policy{})
	g.passes("DELETE", "/anything?at=all")
	g.rejects(event.HostNotAllowed, "GET", "/", "Host: proxy.example")
	if g.routes != nil {
		t.Errorf("routes %v were reported, though there are none", g.routes)
	}
}

func TestGuardNeedsNoTrace(t *testing.T) {
	g, err := newGuard(guard.Policy{Routes: []string{"GET /a"}, ReportOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	h := g.Wrap(http.NotFoundHandler())
	for _, target := range []string{"/a", "/b", "//"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", target, nil))
	}
}

// slow is a handler that signals when a request enters and then waits.
type slow struct{ entered, leave chan struct{} }

func newSlow() *slow { return &slow{make(chan struct{}), make(chan struct{})} }

func (s *slow) wait() { s.entered <- struct{}{}; <-s.leave }

func TestRequestsPastTheLimitAreTurnedAwayAndTheirSlotsComeBack(t *testing.T) {
	for name, end := range map[string]func(){
		"after an answer":    func() {},
		"after an abort":     func() { panic(http.ErrAbortHandler) },
		"after a true panic": func() { panic("bug") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSlow()
			denied := make(chan event.Code, 1)
			g, err := newGuard(guard.Policy{MaxRequests: 2, Trace: guard.Trace{
				Denied: func(_ context.Context, reason event.Code, _ bool) { denied <- reason },
			}})
			if err != nil {
				t.Fatal(err)
			}
			srv := httptest.NewUnstartedServer(g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.wait(); end() })))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.Start()
			defer srv.Close()
			var held sync.WaitGroup
			for range 2 {
				held.Go(func() { // a panic ends the connection without a response
					if res, err := srv.Client().Post(srv.URL, "", nil); err == nil {
						res.Body.Close()
					}
				})
				<-s.entered
			}
			if g.InFlight() != 2 {
				t.Errorf("%d in flight, want 2", g.InFlight())
			}
			res, err := srv.Client().Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 503 || res.Header.Get(problem.Header) != "too_busy" || res.Header.Get("Retry-After") != "1" || <-denied != "too_busy" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			close(s.leave)
			held.Wait()
			srv.Close() // waits for the handlers
			if g.InFlight() != 0 {
				t.Errorf("%d slots were not given back", g.InFlight())
			}
		})
	}
}

func TestAbortedResponseStaysAborted(t *testing.T) {
	g := newGate(t, guard.Policy{MaxRequests: 1})
	g.next = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "half")
		panic(http.ErrAbortHandler)
	}
	res, err := g.srv.Client().Get(g.srv.URL)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("half an answer looks whole")
	}
}

func TestNoLimitCountsAllTheSame(t *testing.T) {
	s := newSlow()
	g, err := newGuard(guard.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.wait() }))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Host = "localhost"
			h.ServeHTTP(httptest.NewRecorder(), r)
		})
		<-s.entered
	}
	if g.InFlight() != 50 {
		t.Errorf("%d in flight, want 50", g.InFlight())
	}
	close(s.leave)
	all.Wait()
}

func TestIdleAndSlowConnectionsTakeNoSlot(t *testing.T) {
	g := newGate(t, guard.Policy{MaxRequests: 1})
	for range 200 {
		conn, err := net.DialTimeout("tcp", g.srv.Listener.Addr().String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: local")
	}
	g.passes("GET", "/")
}
