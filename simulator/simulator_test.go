package simulator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func TestMain(m *testing.M) {
	suite.Parallel(8)
	goleak.VerifyTestMain(m)
}

// noon is when the tests that set the clock begin.
var noon = time.Date(2026, 3, 5, 12, 0, 7, 0, time.UTC)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: noon} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is a running simulator and a client for it.
type rig struct {
	*simulator.Server
	t      *testing.T
	client *http.Client
	token  string
}

func start(t *testing.T, o simulator.Options) *rig {
	t.Helper()
	s, err := simulator.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots}, ForceAttemptHTTP2: true, DisableCompression: true, MaxResponseHeaderBytes: 4 << 20}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Errorf("closing the simulator: %v", err)
		}
	})
	return &rig{Server: s, t: t, client: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// bothProtocols runs a test over HTTP/2 and over HTTP/1.1.
func bothProtocols(t *testing.T, o simulator.Options, test func(*testing.T, *rig)) {
	t.Helper()
	for name, http1 := range map[string]bool{"HTTP2": false, "HTTP1": true} {
		if http1 && testing.Short() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o := o
			o.HTTP1Only = http1
			test(t, start(t, o))
		})
	}
}

func form(id, secret string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
}

// fetch requests a token.
func (r *rig) fetch(f url.Values) (int, map[string]any) {
	r.t.Helper()
	res, body := r.do(r.request("POST", "/oauth/token", strings.NewReader(f.Encode()), "Content-Type", "application/x-www-form-urlencoded", "Authorization", ""))
	return res.StatusCode, decode(r.t, body)
}

// login fetches a token for the following requests.
func (r *rig) login() *rig {
	r.t.Helper()
	status, answer := r.fetch(form(simulator.DefaultClientID, simulator.DefaultClientSecret))
	if status != 200 {
		r.t.Fatalf("token request: status %d, %v", status, answer)
	}
	r.token = answer["access_token"].(string)
	return r
}

// request returns a request with pairs of header names and values. An empty value removes
// the header.
func (r *rig) request(method, target string, body io.Reader, header ...string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL+target, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return req
}

func (r *rig) try(req *http.Request) (*http.Response, []byte, error) {
	res, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

func (r *rig) do(req *http.Request) (*http.Response, []byte) {
	r.t.Helper()
	res, body, err := r.try(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return res, body
}

func (r *rig) get(target string, header ...string) (*http.Response, map[string]any) {
	r.t.Helper()
	res, body := r.do(r.request("GET", target, nil, header...))
	return res, decode(r.t, body)
}

// call calls a function with one item of data, or with a whole JSON body.
func (r *rig) call(target string, arg any) map[string]any {
	r.t.Helper()
	if _, whole := arg.(string); !whole {
		arg = string(encode(r.t, map[string]any{"data": []any{arg}}))
	}
	res, body := r.do(r.request("POST", target, strings.NewReader(arg.(string)), "Content-Type", "application/json"))
	if res.StatusCode != 200 {
		r.t.Fatalf("%s: status %d: %s", target, res.StatusCode, body)
	}
	return decode(r.t, body)
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode(t *testing.T, body []byte) (v map[string]any) {
	t.Helper()
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %.200q", err, body)
	}
	return v
}

// dig follows a path of member names and list indices.
func dig(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func list(v any, path ...any) []any {
	l, _ := dig(v, path...).([]any)
	return l
}

// code returns the code of an error in the flat or the nested envelope.
func code(answer map[string]any) any {
	if c := dig(answer, "fail", 0, "code"); c != nil {
		return c
	}
	return dig(answer, "fail", 0, "errors", 0, "code")
}

// eventually waits until ok returns true, or fails the test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never came to be that %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}
