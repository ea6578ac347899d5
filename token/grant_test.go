package token_test

import (
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/secret"
	"mimecast-proxy/token"
)

const marked = "s3cr3t&+%=marked" // characters that break an unescaped form

func is(s string) func() secret.Text {
	return func() secret.Text { return secret.New(s) }
}

// serve starts a TLS server and returns a grant that uses it.
func serve(t *testing.T, h http.HandlerFunc) *token.ClientCredentials {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	transport := srv.Client().Transport.(*http.Transport)
	t.Cleanup(func() { transport.CloseIdleConnections(); srv.Close() })
	return &token.ClientCredentials{URL: srv.URL + "/oauth/token", ID: is("client"), Secret: is(marked), Transport: transport}
}

// answering is a token endpoint that always sends the same response.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func TestGrantIsOneFormWithTheSecretInIt(t *testing.T) {
	var requests atomic.Int64
	grant := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Method != "POST" || r.URL.Path != "/oauth/token" || r.Header.Get("Authorization") != "" ||
			r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
			r.PostFormValue("grant_type") != "client_credentials" ||
			r.PostFormValue("client_id") != "client" || r.PostFormValue("client_secret") != marked || len(r.PostForm) != 3 {
			t.Errorf("%s %s %v %v", r.Method, r.URL, r.Header, r.PostForm)
		}
		answering(200, "application/json", `{"access_token":"abc.DEF-1_2~3+4/5==","token_type":"Bearer","expires_in":1799,"scope":""}`)(w, r)
	})
	before := time.Now()
	tok, err := grant.Fetch(t.Context())
	if err != nil || tok.Authorization() != "Bearer abc.DEF-1_2~3+4/5==" {
		t.Fatalf("%v, %v", tok, err)
	}
	if life := tok.Expiry().Sub(tok.Fetched()); life != 1799*time.Second || tok.Fetched().Before(before.Add(-time.Second)) {
		t.Errorf("lifetime %v from %v", life, tok.Fetched())
	}
	if requests.Load() != 1 {
		t.Errorf("%d requests", requests.Load())
	}
}

func TestLifetimes(t *testing.T) {
	for expiresIn, want := range map[string]time.Duration{
		`1799`:                  1799 * time.Second,
		`"1799"`:                1799 * time.Second,
		`17.5`:                  17500 * time.Millisecond,
		`1e3`:                   1000 * time.Second,
		`"1799.0"`:              1799 * time.Second,
		`null`:                  token.DefaultLifetime,
		`0`:                     token.DefaultLifetime,
		`"0"`:                   token.DefaultLifetime,
		`86401`:                 token.MaxLifetime,
		`999999999999`:          token.MaxLifetime,
		`"9223372036854775807"`: token.MaxLifetime,
	} {
		grant := serve(t, answering(200, "application/json", `{"access_token":"abc","expires_in":`+expiresIn+`}`))
		tok, err := grant.Fetch(t.Context())
		if err != nil {
			t.Errorf("expires_in %s: %v", expiresIn, err)
		} else if got := tok.Expiry().Sub(tok.Fetched()); got != want {
			t.Errorf("expires_in %s: lives %v, want %v", expiresIn, got, want)
		}
	}
}

func TestLiberalInWhatIsAccepted(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"no type":               answering(200, "application/json", `{"access_token":"abc"}`),
		"lower case type":       answering(200, "application/json", `{"access_token":"abc","token_type":"bearer"}`),
		"JSON said to be text":  answering(200, "text/plain", `{"access_token":"abc"}`),
		"octets":                answering(200, "application/octet-stream", `{"access_token":"abc"}`),
		"a byte order mark":     answering(200, "application/json", "\ufeff"+`{"access_token":"abc"}`),
		"gzip":                  compressed("gzip", `{"access_token":"abc"}`),
		"gzip that is not said": compressed("", `{"access_token":"abc"}`),
		"gzip that is only said": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answering(200, "application/json", `{"access_token":"abc"}`)(w, r)
		},
		"a byte order mark in gzip": compressed("gzip", "\ufeff"+`{"access_token":"abc"}`),
		"gzip unless something else is asked for": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "identity" {
				t.Errorf("Accept-Encoding: %q", r.Header.Get("Accept-Encoding"))
			}
			answering(200, "application/json", `{"access_token":"abc"}`)(w, r)
		},
	} {
		grant := serve(t, h)
		grant.Transport.(*http.Transport).DisableCompression = true // as the proxy's transport does
		if tok, err := grant.Fetch(t.Context()); err != nil || tok.Authorization() != "Bearer abc" {
			t.Errorf("%s: %v, %v", name, tok, err)
		}
	}
}

// compressed responds in gzip, whatever the request accepts.
func compressed(encoding, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if encoding != "" {
			w.Header().Set("Content-Encoding", encoding)
		}
		pack := gzip.NewWriter(w)
		fmt.Fprint(pack, body)
		pack.Close()
	}
}

// TestHostileResponses checks the error for any response: it has the right outcome, and
// contains no secret and nothing from the response.
func TestHostileResponses(t *testing.T) {
	echo := "client_secret=" + marked
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   event.TokenOutcome
		says   string
	}{
		"flat fail 401":        {answering(401, "application/json", `{"fail":[{"code":"InvalidClientIdentifier","message":"`+marked+`"}]}`), event.TokenRefused, "code InvalidClientIdentifier"},
		"nested fail 401":      {answering(401, "application/json", `{"fail":[{"errors":[{"code":"invalid_client_identifier"}]}]}`), event.TokenRefused, "code invalid_client_identifier"},
		"OAuth 400":            {answering(400, "application/json", `{"error":"invalid_client","error_description":"`+marked+`"}`), event.TokenRefused, "code invalid_client"},
		"401 in plain text":    {answering(401, "text/plain", echo), event.TokenRefused, "MIMECAST_CLIENT_SECRET"},
		"secret as code":       {answering(401, "application/json", `{"fail":[{"code":"`+marked+`"}]}`), event.TokenRefused, "status 401)"},
		"403 of a firewall":    {answering(403, "text/html", "<html>blocked "+echo), event.TokenFailed, "status 403"},
		"200 with fail":        {answering(200, "application/json", `{"fail":[{"code":"internal-error"}]}`), event.TokenFailed, "no access_token, code internal-error"},
		"200 with error":       {answering(200, "application/json", `{"error":{"message":"`+marked+`"}}`), event.TokenFailed, "no access_token"},
		"HTML":                 {answering(200, "text/html", "<html>"+echo), event.TokenFailed, "not JSON"},
		"empty":                {answering(200, "application/json", ""), event.TokenFailed, "not JSON"},
		"null":                 {answering(200, "application/json", "null"), event.TokenFailed, "no access_token"},
		"an array":             {answering(200, "application/json", `["`+marked+`"]`), event.TokenFailed, "no access_token"},
		"503":                  {answering(503, "application/json", `{"fail":[{"code":"internal-error","message":"`+marked+`"}]}`), event.TokenFailed, "status 503, code internal-error"},
		"mac":                  {answering(200, "application/json", `{"access_token":"abc","token_type":"mac"}`), event.TokenFailed, "not Bearer"},
		"CR LF in the token":   {answering(200, "application/json", `{"access_token":"abc\r\nX-Evil: 1"}`), event.TokenFailed, "RFC 6750"},
		"NUL in the token":     {answering(200, "application/json", `{"access_token":"abc\u0000"}`), event.TokenFailed, "RFC 6750"},
		"space in the token":   {answering(200, "application/json", `{"access_token":"abc def"}`), event.TokenFailed, "RFC 6750"},
		"only padding":         {answering(200, "application/json", `{"access_token":"=="}`), event.TokenFailed, "RFC 6750"},
		"negative lifetime":    {answering(200, "application/json", `{"access_token":"abc","expires_in":-5}`), event.TokenFailed, "negative"},
		"very negative":        {answering(200, "application/json", `{"access_token":"abc","expires_in":-4294967297}`), event.TokenFailed, "negative"},
		"lifetime in words":    {answering(200, "application/json", `{"access_token":"abc","expires_in":"`+marked+`"}`), event.TokenFailed, "expires_in is not a number"},
		"lifetime as object":   {answering(200, "application/json", `{"access_token":"abc","expires_in":{}}`), event.TokenFailed, ""},
		"lifetime not finite":  {answering(200, "application/json", `{"access_token":"abc","expires_in":"NaN"}`), event.TokenFailed, ""},
		"token is a number":    {answering(200, "application/json", `{"access_token":5}`), event.TokenFailed, ""},
		"endless":              {endless, event.TokenFailed, "more than 65536 bytes"},
		"bomb":                 {compressed("gzip", strings.Repeat(" ", 1<<20)), event.TokenFailed, "more than 65536 bytes"},
		"broken gzip":          {answering(200, "application/json", "\x1f\x8b broken"), event.TokenFailed, "cannot be read"},
		"404":                  {answering(404, "text/html", echo), event.TokenFailed, "there is no token endpoint at https://127.0.0.1:"},
		"405":                  {answering(405, "application/json", "{}"), event.TokenFailed, "check MIMECAST_TOKEN_URL, or MIMECAST_BASE_URL"},
		"truncated":            {truncated, event.TokenFailed, "cannot be read"},
		"redirect to the open": {http.RedirectHandler("http://127.0.0.1:1/", 307).ServeHTTP, event.TokenFailed, "redirect (status 307)"},
		"reset":                {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, event.TokenFailed, "cannot reach"},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := serve(t, c.answer).Fetch(t.Context())
			got, ok := errors.AsType[*token.Error](err)
			if !ok || tok != nil {
				t.Fatalf("got %v, %v", tok, err)
			}
			if got.Outcome != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", got.Outcome, err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, *got), "s3cr3t") {
				t.Errorf("the error leaks: %v", err)
			}
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := fmt.Fprint(w, strings.Repeat("x", 4096)); err != nil {
			return
		}
	}
}

func truncated(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, `{"access_token":"abc"`)
}

func TestRetryAfterOfTheResponse(t *testing.T) {
	for _, c := range []struct {
		header, value string
		atLeast, most time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second, 7 * time.Second},
		{"Retry-After", "-7", 0, 0},
		{"Retry-After", "99999999999999999", 0, time.Hour},
		{"Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat), 50 * time.Second, time.Minute},
		{"X-RateLimit-Reset", "1750", 1750 * time.Millisecond, 1750 * time.Millisecond},
		{"X-Rate-Limit-Reset", "1750", 1750 * time.Millisecond, 1750 * time.Millisecond},
	} {
		_, err := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(c.header, c.value)
			w.WriteHeader(429)
		}).Fetch(t.Context())
		got, ok := errors.AsType[*token.Error](err)
		if !ok || got.RetryAfter < c.atLeast || got.RetryAfter > c.most {
			t.Errorf("%s: %s: %v", c.header, c.value, err)
		}
	}
}

func TestUnreachableEndpoint(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	grant := &token.ClientCredentials{URL: "https://" + l.Addr().String(), ID: is("client"), Secret: is(marked)}
	l.Close()
	_, err = grant.Fetch(t.Context())
	if got, ok := errors.AsType[*token.Error](err); !ok || got.Outcome != event.TokenFailed || got.Status != 0 {
		t.Errorf("refused connection: %v", err)
	}
	grant = serve(t, answering(200, "application/json", "{}"))
	grant.Transport = nil // does not trust the server
	_, err = grant.Fetch(t.Context())
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("unknown CA: %v", err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	grant := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm() // net/http watches the connection only after the body is read
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	_, err := grant.Fetch(ctx)
	if _, judged := errors.AsType[*token.Error](err); judged || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// vault is a secret that can be rotated.
type vault struct{ text atomic.Pointer[secret.Text] }

func (v *vault) set(s string)      { text := secret.New(s); v.text.Store(&text) }
func (v *vault) read() secret.Text { return *v.text.Load() }

func newVault(s string) *vault { v := &vault{}; v.set(s); return v }

func TestSecretRotatedUnderTheFetchIsTriedAtOnce(t *testing.T) {
	v := newVault("old")
	var requests atomic.Int64
	grant := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.PostFormValue("client_secret") == "new" {
			answering(200, "application/json", `{"access_token":"abc"}`)(w, r)
			return
		}
		v.set("new")
		answering(401, "application/json", `{"fail":[{"code":"InvalidClientIdentifier"}]}`)(w, r)
	})
	grant.Secret = v.read
	if _, err := grant.Fetch(t.Context()); err != nil || requests.Load() != 2 {
		t.Errorf("%v after %d requests", err, requests.Load())
	}
}

func TestChangedTellsOfOtherCredentials(t *testing.T) {
	v := newVault("old")
	grant := serve(t, answering(401, "application/json", `{}`))
	grant.Secret = v.read
	if grant.Changed() {
		t.Error("changed before anything was used")
	}
	if _, err := grant.Fetch(t.Context()); err == nil || grant.Changed() {
		t.Errorf("%v; changed: %v", err, grant.Changed())
	}
	v.set("new")
	if !grant.Changed() {
		t.Error("other credentials were not noticed")
	}
}

func TestClockIsCheckedByWhatTheResponsesDateCanTell(t *testing.T) {
	const slow = 20 * time.Second // between request and response; the Date may be any time within it
	for dated, want := range map[time.Duration]time.Duration{
		0: 0, slow: 0, slow / 2: 0, -time.Second: 0,
		-time.Second - time.Hour: time.Hour,
		slow + time.Hour:         -time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			got := time.Duration(-1)
			grant := token.ClientCredentials{URL: "https://mimecast.test/oauth/token", ID: is("client"), Secret: is(marked),
				OnClockSkew: func(ahead time.Duration) { got = ahead },
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					rec := httptest.NewRecorder()
					rec.Header().Set("Date", time.Now().Add(dated).UTC().Format(http.TimeFormat))
					rec.WriteHeader(401)
					time.Sleep(slow)
					return rec.Result(), nil
				})}
			if _, err := grant.Fetch(t.Context()); err == nil || got != want {
				t.Errorf("dated %v after the request: %v, want %v; %v", dated, got, want, err)
			}
		})
	}
	grant := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		answering(200, "application/json", `{"access_token":"abc"}`)(w, r)
	})
	grant.OnClockSkew = func(time.Duration) { t.Error("judged without a date") }
	if _, err := grant.Fetch(t.Context()); err != nil {
		t.Error(err)
	}
}

// FuzzResponse checks that no response crashes the grant, and that every accepted token is
// valid in a header.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{`{"access_token":"abc","token_type":"Bearer","expires_in":1799}`, `{"fail":[{"code":"x"}]}`, `{"expires_in":"-1"}`, "a=b", ""} {
		f.Add(200, "application/json", []byte(s))
		f.Add(401, "text/plain", []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		grant := token.ClientCredentials{URL: "https://mimecast.test/oauth/token", ID: is("client"), Secret: is(marked),
			Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				rec := httptest.NewRecorder()
				rec.Header().Set("Content-Type", contentType)
				rec.WriteHeader(200 + uint8ed(status))
				rec.Write(body)
				return rec.Result(), nil
			})}
		tok, err := grant.Fetch(t.Context())
		if err != nil {
			if _, ok := errors.AsType[*token.Error](err); !ok || strings.Contains(err.Error(), marked) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if sent, ok := strings.CutPrefix(tok.Authorization(), "Bearer "); !ok || sent == "" || strings.ContainsAny(sent, "\r\n\x00 ,;\"") {
			t.Fatalf("accepted %q", sent)
		}
		if life := tok.Expiry().Sub(tok.Fetched()); life <= 0 || life > token.MaxLifetime {
			t.Fatalf("lives %v", life)
		}
	})
}

func uint8ed(n int) int { return int(uint8(n)) }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
