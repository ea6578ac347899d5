package quota_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/proxy"
	"mimecast-proxy/quota"
	"mimecast-proxy/upstream"
)

// rig is a proxy on real sockets, in front of an upstream with real TLS.
type rig struct {
	t      *testing.T
	model  *quota.Model
	front  *httptest.Server
	client *http.Client

	mu       sync.Mutex
	holds    []event.HoldOutcome
	outcomes []string // of requests that got 401
}

type setup struct {
	wait  time.Duration
	pace  quota.Pace
	limit int64 // of replay bodies, in bytes
}

func newRig(t *testing.T, s setup, h http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{t: t}
	up := httptest.NewUnstartedServer(h)
	up.EnableHTTP2 = true
	up.Config.ErrorLog = log.New(io.Discard, "", 0)
	up.StartTLS()
	base, err := url.Parse(up.URL)
	if err != nil {
		t.Fatal(err)
	}
	connections := upstream.New(upstream.Options{
		Roots:           up.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		DialTimeout:     10 * time.Second,
		ResponseTimeout: time.Minute,
	})
	r.model = quota.New(quota.Options{Wait: s.wait, Pace: s.pace, Trace: quota.Trace{
		Held: func(_ context.Context, o event.HoldOutcome) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.holds = append(r.holds, o)
		},
	}})
	trace := proxy.Trace{Retried: func(_ context.Context, o event.RetryOutcome) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.outcomes = append(r.outcomes, string(o))
	}}
	if s.limit == 0 {
		s.limit = 1 << 20
	}
	next := proxy.New(proxy.Options{
		Transport: proxy.Replay(s.limit, proxy.NewBudget(64<<20, nil))(r.model.Wrap(proxy.Authenticate(trace))),
		ErrorLog:  log.New(io.Discard, "", 0),
	})
	a := &account.Account{Name: "a", BaseURL: base, Tokens: &tokens{held: &token{1}}, Transport: connections}
	r.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		next.ServeHTTP(w, req.WithContext(account.NewContext(req.Context(), a, req.Header.Get("X-Client"))))
	}))
	r.client = r.front.Client()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		r.front.Close()
		connections.CloseIdleConnections()
		up.Close()
	})
	return r
}

func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.front.URL+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(got)
}

func (r *rig) saw(outcomes ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.outcomes, outcomes) {
		r.t.Errorf("outcomes %v, want %v", r.outcomes, outcomes)
	}
}

// tokens is a source of numbered tokens.
type tokens struct {
	mu   sync.Mutex
	held *token
}

type token struct{ n int }

func (*token) Expiry() time.Time { return time.Now().Add(time.Hour) }

func (n *token) Authorization() string { return fmt.Sprintf("Bearer token-%d", n.n) }

func (s *tokens) Token(context.Context) (account.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, nil
}

func (s *tokens) Expire(account.Token) {}

func (s *tokens) Renew(_ context.Context, rejected account.Token) (account.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == rejected {
		s.held = &token{s.held.n + 1}
	}
	return s.held, nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(w, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// rejecting responds with 401 to the first token, and otherwise calls h.
func rejecting(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"fail":[{"code":"token_expired","message":"m"}]}`)
			return
		}
		h(w, r)
	}
}
