package quota_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/proxy"
	"mimecast-proxy/simulator"
	"mimecast-proxy/upstream"
)

// bearer is a token and its source.
type bearer string

func (bearer) Expiry() time.Time                                             { return time.Now().Add(time.Hour) }
func (b bearer) Authorization() string                                       { return "Bearer " + string(b) }
func (b bearer) Token(context.Context) (account.Token, error)                { return b, nil }
func (b bearer) Expire(account.Token)                                        {}
func (b bearer) Renew(context.Context, account.Token) (account.Token, error) { return b, nil }
func (s scenario) simulatorOptions() simulator.Options {
	return simulator.Options{RequestLog: 1 << 20, Quotas: map[string]simulator.Quota{s.path: {Calls: s.limit, Window: s.window}}}
}

// hop sends a tool's requests to a proxy.
type hop struct {
	url    string
	client *http.Client
}

func (h hop) RoundTrip(req *http.Request) (*http.Response, error) {
	out, err := http.NewRequestWithContext(req.Context(), "GET", h.url+req.URL.Opaque, nil)
	if err != nil {
		return nil, err
	}
	out.Header.Set("X-Client", account.ClientOf(req))
	res, err := h.client.Do(out)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	res.Body = http.NoBody
	return res, err
}

// measurement is run with real time, sockets and TLS, against the simulator. It sets
// everything up at once; the returned func runs the measurement.
func (s scenario) measurement(t *testing.T, w way) func() row {
	t.Helper()
	sim, err := simulator.Start(s.simulatorOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	connections := upstream.New(upstream.Options{Roots: sim.Roots, DialTimeout: 10 * time.Second, ResponseTimeout: time.Minute})
	t.Cleanup(connections.CloseIdleConnections)
	base, err := url.Parse(sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	a := &account.Account{Name: "a", BaseURL: base, Tokens: bearer(fetch(t, sim, connections)), Transport: connections}
	fronts := make([]http.RoundTripper, s.replicas)
	for i := range fronts {
		fronts[i] = front(t, a, w)
	}
	return func() row {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(s.windows)*s.window+s.window/2)
		defer cancel()
		heavy, light := s.drive(ctx, w, fronts)
		return s.row(w.name, s.observed(sim), heavy, light)
	}
}

type clientKey struct{}

// front serves a proxy with w instead of its quota layer.
func front(t *testing.T, a *account.Account, w way) hop {
	t.Helper()
	next := proxy.New(proxy.Options{
		Transport: proxy.Replay(1<<20, proxy.NewBudget(64<<20, nil))(w.replica(proxy.Authenticate(proxy.Trace{}))),
		ErrorLog:  log.New(io.Discard, "", 0),
	})
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		client := req.Header.Get("X-Client")
		next.ServeHTTP(rw, req.WithContext(account.NewContext(context.WithValue(req.Context(), clientKey{}, client), a, client)))
	}))
	t.Cleanup(front.Close)
	return hop{front.URL, front.Client()}
}

// observed returns the simulator's counts as a gateway.
func (s scenario) observed(sim *simulator.Server) *gateway {
	g := &gateway{limit: s.limit, window: s.window}
	for _, r := range sim.Requests() {
		switch {
		case r.Target != s.path:
		case r.Status == http.StatusTooManyRequests:
			g.limited++
		case r.Status == http.StatusOK:
			g.turn(r.Time)
			g.calls = append(g.calls, r.Time)
			g.served++
		}
	}
	return g
}

// fetch gets a token from the simulator.
func fetch(t *testing.T, sim *simulator.Server, over http.RoundTripper) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {simulator.DefaultClientID}, "client_secret": {simulator.DefaultClientSecret}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", sim.URL+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := over.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `"access_token":"`)
	token, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no token in %s", text)
	}
	return token
}

// The log shows all numbers, most of which depend on the machine.
func TestMeasureOverRealConnections(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	scenarios := []scenario{{replicas: 1}, {replicas: 3}}
	rows := make([][]row, len(scenarios))
	held := make([]atomic.Int64, len(scenarios)) // the longest time that pacing delayed a light tool
	var wg sync.WaitGroup
	for i := range scenarios {
		s := &scenarios[i]
		s.limit, s.window, s.windows, s.wait = 120, 5*time.Second, 2, 3*time.Second
		s.path = "/identity/whoami" // a cheap path for the simulator
		s.trace.Paced = func(ctx context.Context, _ string, waited time.Duration, _ event.PaceOutcome) {
			if name, _ := ctx.Value(clientKey{}).(string); strings.HasPrefix(name, "light-") {
				held[i].Store(max(held[i].Load(), int64(waited)))
			}
		}
		ways := s.ways()[:3] // buckets do not wait for responses
		rows[i] = make([]row, len(ways))
		for j, w := range ways {
			measure := s.measurement(t, w)
			wg.Go(func() { rows[i][j] = measure() })
		}
	}
	wg.Wait()
	for i, s := range scenarios {
		text := new(strings.Builder)
		for _, r := range rows[i] {
			fmt.Fprintf(text, "%v %v\n", r, r.windows)
		}
		t.Logf("%v: pacing held a light tool for %v at most\n%s\n%s", s, time.Duration(held[i].Load()), rowHead, text)
		if rows[i][2].used < 0.99 {
			t.Log("the machine was too slow for the traffic")
			continue
		}
		if r := rows[i][0]; r.limited*50 > r.sent || r.used < 0.95 || held[i].Load() > int64(100*time.Millisecond) {
			t.Errorf("paced: %d of %d responses are 429, %.1f %% used", r.limited, r.sent, 100*r.used)
		}
	}
}
