package app

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/account"
)

// A request passes six layers before the connections, and one more for each of the settings. It
// returns to no file that it has left.
func TestWalkOfARequest(t *testing.T) {
	for _, settings := range [][]string{nil, {"PROXY_API1=true"}, {"PROXY_API1=true", "PROXY_BATCH_RELAY=true"}} {
		layers, files := walk(t, settings...)
		if len(layers) != 6+len(settings) {
			t.Errorf("%q: %d layers: %q", settings, len(layers), layers)
		}
		if once := slices.Compact(slices.Sorted(slices.Values(files))); len(once) != len(files) {
			t.Errorf("%q: a file comes twice: %q", settings, files)
		}
	}
}

var entry = regexp.MustCompile(`\.(ServeHTTP|RoundTrip|Wrap\.func\d+)$`)

// walk returns the functions in which a request enters a layer, from the inside out, and the
// files that it passes.
func walk(t *testing.T, settings ...string) (layers, files []string) {
	t.Helper()
	p := assembled(t, Env{Stderr: io.Discard}, append(settings, "MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=the-secret-0123456789")...)
	a := p.accounts.list()[0].Account
	a.Tokens = bearer{}
	a.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		callers := make([]uintptr, 100)
		frames := runtime.CallersFrames(callers[:runtime.Callers(3, callers)])
		for f, more := frames.Next(); more; f, more = frames.Next() {
			if !strings.HasPrefix(f.Function, "mimecast-proxy/") || strings.HasSuffix(f.File, "_test.go") {
				continue
			}
			if entry.MatchString(f.Function) {
				layers = append(layers, f.Function)
			}
			files = append(files, f.File)
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	})
	w := httptest.NewRecorder()
	p.handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://localhost/api/account/get-account", strings.NewReader("{}")))
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	return layers, slices.Compact(files)
}

// assembled returns the components of a proxy with these variables.
func assembled(tb testing.TB, env Env, environ ...string) *components {
	tb.Helper()
	cfg, err := env.configure(environ)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := env.assemble(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// bearer is a token that stays valid, and its source.
type bearer struct{ account.TokenSource }

func (b bearer) Token(context.Context) (account.Token, error) { return b, nil }
func (bearer) Authorization() string                          { return "Bearer the-token-0123456789" }
func (bearer) Expiry() time.Time                              { return time.Now().Add(time.Hour) }
