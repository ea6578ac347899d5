package admin_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves the handler on a real listener.
func serve(t *testing.T, o admin.Options) *httptest.Server {
	t.Helper()
	if o.Accounts == nil {
		o.Accounts = having(admin.TokenState{Held: true, Valid: true, EverHeld: true})
	}
	s := httptest.NewServer(admin.Handler(o))
	t.Cleanup(func() {
		s.Client().CloseIdleConnections()
		s.Close()
	})
	return s
}

// having returns a func that returns one account with the token.
func having(t admin.TokenState) func() []admin.Account {
	return func() []admin.Account {
		return []admin.Account{{Name: "default", ClientID: "abcdefghijkl", Region: "global", BaseURL: "https://api.services.mimecast.com", Token: t}}
	}
}

func ask(t *testing.T, s *httptest.Server, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	client := *s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// anyone is a Local that allows every request.
func anyone(next http.Handler) http.Handler { return next }

// full returns options with everything turned on.
func full() admin.Options {
	return admin.Options{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "metrics") }),
		Support: func() admin.Support {
			return admin.Support{Settings: []admin.Setting{{Name: "A", Value: "b", Origin: "default"}}}
		},
		Status: func() admin.Status { return admin.Status{} },
		Quit:   func() {},
		Local:  anyone,
	}
}

func TestWrongMethodAndPathAreRefused(t *testing.T) {
	s := serve(t, full())
	for _, c := range []struct {
		method, path, allow string
		status              int
	}{
		{"POST", "/livez", "GET, HEAD", 405},
		{"DELETE", "/readyz", "GET, HEAD", 405},
		{"POST", "/metrics", "GET, HEAD", 405},
		{"GET", "/quitquitquit", "POST", 405},
		{"OPTIONS", "/api/status", "GET, HEAD", 405},
		{"GET", "/livez/", "", 404},
		{"GET", "//livez", "", 404},
		{"GET", "/debug/pprof/", "", 404},
		{"GET", "/api/../livez", "", 404},
	} {
		res, body := ask(t, s, c.method, c.path)
		if res.StatusCode != c.status || res.Header.Get("Allow") != c.allow || !json.Valid([]byte(body)) {
			t.Errorf("%s %s: %d %q %s", c.method, c.path, res.StatusCode, res.Header.Get("Allow"), body)
		}
	}
}

func TestEveryAnswerIsKeptOutOfCachesAndSniffers(t *testing.T) {
	s := serve(t, full())
	for _, path := range []string{"/livez", "/startupz", "/readyz", "/metrics", "/api/status", "/api/support", "/nothing"} {
		res, _ := ask(t, s, "GET", path)
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		if !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", path, res.Header)
		}
	}
}

func TestOnlyWhatShowsOrChangesIsLocal(t *testing.T) {
	o := full()
	o.Local = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	}
	o.Quit = func() { t.Error("quit") }
	s := serve(t, o)
	for target, want := range map[string]int{
		"GET /livez": 200, "GET /healthz": 200, "GET /startupz": 200, "GET /readyz": 200, "GET /metrics": 200,
		"GET /api/status": 403, "GET /api/support": 403, "POST /quitquitquit": 403,
	} {
		method, path, _ := strings.Cut(target, " ")
		if res, _ := ask(t, s, method, path, "Host", "rebound.example"); res.StatusCode != want {
			t.Errorf("%s: %d, want %d", target, res.StatusCode, want)
		}
	}
}

func TestWithoutAWayToTellWhoIsLocalNothingIsShown(t *testing.T) {
	o := full()
	o.Local = nil
	s := serve(t, o)
	for _, target := range []string{"GET /", "GET /api/status", "GET /api/support", "POST /quitquitquit"} {
		method, path, _ := strings.Cut(target, " ")
		if res, _ := ask(t, s, method, path); res.StatusCode != 404 {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
	}
}

func TestWhatIsNotOfferedIsNotThere(t *testing.T) {
	s := serve(t, admin.Options{Local: anyone})
	for _, target := range []string{"GET /", "GET /metrics", "GET /api/status", "GET /api/support", "POST /quitquitquit"} {
		method, path, _ := strings.Cut(target, " ")
		if res, _ := ask(t, s, method, path); res.StatusCode != 404 {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
	}
}

func TestQuitIsAnsweredAndCalledOnce(t *testing.T) {
	var calls atomic.Int64
	o := full()
	o.Quit = func() { calls.Add(1) }
	s := serve(t, o)
	for range 3 {
		if res, body := ask(t, s, "POST", "/quitquitquit"); res.StatusCode != 202 || !strings.Contains(body, "quitting") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	s.Close() // waits for the handlers
	if calls.Load() != 1 {
		t.Errorf("called %d times", calls.Load())
	}
}

func TestQuitIsAnsweredBeforeItBegins(t *testing.T) {
	answered := make(chan bool)
	o := full()
	o.Quit = func() { <-answered }
	s := serve(t, o)
	if res, _ := ask(t, s, "POST", "/quitquitquit"); res.StatusCode != 202 {
		t.Errorf("%d", res.StatusCode)
	}
	close(answered)
}

func TestForeignPageCannotQuit(t *testing.T) {
	o := full()
	o.Quit = func() { t.Error("quit") }
	s := serve(t, o)
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		if res, _ := ask(t, s, "POST", "/quitquitquit", header...); res.StatusCode != 403 {
			t.Errorf("%v: %d", header, res.StatusCode)
		}
	}
}

// one is a listener that accepts one connection.
type one struct {
	conn chan net.Conn
	done chan struct{}
}

func (l one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l one) Close() error   { close(l.done); return nil }
func (l one) Addr() net.Addr { return &net.TCPAddr{} }

func TestBodyThatDawdlesIsCutAfterTenSeconds(t *testing.T) {
	for _, line := range []string{"POST /livez", "GET /livez", "POST /nowhere"} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			l := one{make(chan net.Conn, 1), make(chan struct{})}
			l.conn <- server
			srv := &http.Server{Handler: admin.Handler(admin.Options{})}
			served := make(chan error)
			go func() { served <- srv.Serve(l) }()
			start := time.Now()
			if _, err := io.WriteString(client, line+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx"); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(client)
			if took := time.Since(start); err != nil || took < 10*time.Second || took > 10*time.Second+500*time.Millisecond || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
				t.Errorf("%s: %q and the end after %v, %v", line, answer, took, err)
			}
			client.Close()
			srv.Close()
			<-served
		})
	}
}

// TestTooManyHeaderFieldsAreRejected checks that fields are counted, not distinct names.
func TestTooManyHeaderFieldsAreRejected(t *testing.T) {
	s := serve(t, admin.Options{})
	for fields, want := range map[int]int{50: http.StatusOK, 101: http.StatusRequestHeaderFieldsTooLarge} {
		req, err := http.NewRequest(http.MethodGet, s.URL+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		for range fields {
			req.Header.Add("A", "b")
		}
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%d fields: %d, want %d", fields, res.StatusCode, want)
		}
	}
}
