package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
	"mimecast-proxy/upstream"
)

func TestMain(m *testing.M) {
	suite.Parallel(8)
	goleak.VerifyTestMain(m)
}

// tokens is a source of numbered tokens.
type tokens struct {
	mu       sync.Mutex
	held     *numbered
	renewals int
	err      error // returned by Token
	renewErr error
	stuck    bool // Renew returns the rejected token
	expired  *numbered
	lifetime time.Duration // of each token; 0 means an hour
}

type numbered struct {
	n      int
	expiry time.Time // zero means in an hour
}

func (n *numbered) Expiry() time.Time {
	if n.expiry.IsZero() {
		return time.Now().Add(time.Hour)
	}
	return n.expiry
}

func (n *numbered) Authorization() string { return fmt.Sprintf("Bearer token-%d", n.n) }

func (s *tokens) Token(context.Context) (account.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	if s.held != nil && s.held == s.expired {
		return nil, s.renewErr
	}
	if s.held == nil {
		s.held = &numbered{n: 1}
	}
	if s.lifetime != 0 && !time.Now().Before(s.held.expiry) {
		s.held = &numbered{n: s.held.n + 1, expiry: time.Now().Add(s.lifetime)}
	}
	return s.held, nil
}

func (s *tokens) Expire(t account.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = t.(*numbered)
}

func (s *tokens) Renew(_ context.Context, rejected account.Token) (account.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.renewErr != nil {
		return nil, s.renewErr
	}
	if s.held == rejected && !s.stuck {
		s.renewals++
		s.held = &numbered{n: s.held.n + 1}
	}
	return s.held, nil
}

// rig is a proxy on real sockets, in front of an upstream with real TLS.
type rig struct {
	t        *testing.T
	tokens   *tokens
	upstream *httptest.Server
	front    *httptest.Server
	base     *upstream.Connections
	budget   *proxy.Budget
	client   *http.Client

	mu       sync.Mutex
	outcomes []string
	codes    []string
	failures []error
	kept     atomic.Int64
}

type setup struct {
	http1  bool
	up     func(*upstream.Options)
	prefix string // of the upstream's base URL
	limit  int64
	memory int64
}

func newRig(t *testing.T, s setup, h http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{t: t, tokens: &tokens{}}
	r.upstream = httptest.NewUnstartedServer(h)
	r.upstream.EnableHTTP2 = !s.http1
	r.upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.upstream.StartTLS()
	base, err := url.Parse(r.upstream.URL + s.prefix)
	if err != nil {
		t.Fatal(err)
	}
	up := upstream.Options{
		Roots:           r.upstream.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		DialTimeout:     10 * time.Second,
		ResponseTimeout: time.Minute,
	}
	if s.up != nil {
		s.up(&up)
	}
	r.base = upstream.New(up)
	if s.limit == 0 {
		s.limit = 1 << 20
	}
	if s.memory == 0 {
		s.memory = 64 << 20
	}
	r.budget = proxy.NewBudget(s.memory, func(d int64) { r.kept.Add(d) })
	r.front = httptest.NewUnstartedServer(handler(
		&account.Account{BaseURL: base, Tokens: r.tokens, Transport: r.base}, s.limit, r.budget, proxy.Trace{
			Retried: func(_ context.Context, o event.RetryOutcome) {
				r.note(func() { r.outcomes = append(r.outcomes, string(o)) })
			},
			Unauthorized: func(_ context.Context, c event.UnauthorizedReason) {
				r.note(func() { r.codes = append(r.codes, string(c)) })
			},
			Failed: func(_ context.Context, p *problem.Problem) { r.note(func() { r.failures = append(r.failures, p) }) },
		}))
	r.front.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.front.Start()
	r.client = r.front.Client()
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(r.close)
	return r
}

// handler returns the proxy as the program sets it up, with every request in the same
// account.
func handler(a *account.Account, limit int64, budget *proxy.Budget, trace proxy.Trace) http.Handler {
	next := proxy.New(proxy.Options{
		Transport: proxy.Replay(limit, budget)(proxy.Authenticate(trace)),
		Trace:     trace, ErrorLog: log.New(io.Discard, "", 0),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), a, "")))
	})
}

func (r *rig) close() {
	r.client.CloseIdleConnections()
	r.front.Close()
	r.base.CloseIdleConnections()
	r.upstream.Close()
	// net/http may still be closing request bodies.
	for deadline := time.Now().Add(10 * time.Second); r.kept.Load() != 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if r.kept.Load() != 0 {
		r.t.Errorf("%d bytes of the replay budget were not given back", r.kept.Load())
	}
}

func (r *rig) note(f func()) { r.mu.Lock(); defer r.mu.Unlock(); f() }

func (r *rig) saw(outcomes ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.outcomes, outcomes) {
		r.t.Errorf("outcomes %v, want %v", r.outcomes, outcomes)
	}
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

// raw sends bytes that no client library would send and returns the response.
func (r *rig) raw(request string) (*http.Response, string) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		r.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(body)
}

// rejecting responds with 401 to tokens numbered 1 to n, and otherwise calls h.
func rejecting(n int, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 1; i <= n; i++ {
			if r.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", i) {
				w.WriteHeader(401)
				fmt.Fprint(w, `{"fail":[{"code":"token_expired","message":"m"}]}`)
				return
			}
		}
		h(w, r)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // not needed for HTTP/2
	w.Header().Set("X-Method", r.Method)
	if _, err := io.Copy(w, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func TestBothProtocolsAreSpoken(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		var proto atomic.Value
		r := newRig(t, setup{http1: http1}, func(_ http.ResponseWriter, req *http.Request) { proto.Store(req.Proto) })
		r.do("GET", "/", nil)
		if want := map[bool]string{true: "HTTP/1.1", false: "HTTP/2.0"}[http1]; proto.Load() != want {
			t.Errorf("%v, want %s", proto.Load(), want)
		}
	}
}

func TestTargetPassesByteForByte(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		var target atomic.Value
		r := newRig(t, setup{http1: http1, prefix: "/base"}, func(_ http.ResponseWriter, req *http.Request) { target.Store(req.RequestURI) })
		for _, want := range []string{
			"/", "/?", "/a?b", "/a%2Fb", "/a%2fb", "/a+b?c=d+e%20f", "/a;b?c;d=1;2", "/x?tz=[Asia/Kolkata]&a=1:2",
			"/x?from=2024-01-01T00:00:00+0000", "/a|b{c}^d`e\"f", "/%E2%82%AC?%zz", "/caf\xc3\xa9?\xff", "/a//b", "/x?a=b#c",
			"/x?" + strings.Repeat("a=1&", 10_000) + "z", "/a:b@c", "/x?y=http://z/", "/%00?%00",
		} {
			r.raw("GET " + want + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			if target.Load() != "/base"+want {
				t.Errorf("HTTP/1 %v: sent %.80q, Mimecast got %.80q", http1, want, target.Load())
			}
		}
		r.raw("GET http://localhost/abs%2F?x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if target.Load() != "/base/abs%2F?x" {
			t.Errorf("absolute form: Mimecast got %q", target.Load())
		}
		r.raw("GET http://localhost?x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if target.Load() != "/base/?x" {
			t.Errorf("absolute form without a path: Mimecast got %q", target.Load())
		}
	}
}

func TestOnlyTheProxysCredentialsArrive(t *testing.T) {
	var got atomic.Value
	r := newRig(t, setup{http1: true}, func(_ http.ResponseWriter, req *http.Request) {
		h := req.Header.Clone()
		h.Set("host", req.Host)
		got.Store(h)
	})
	for _, connection := range []string{"close", "close, Authorization", "close, x-mc-arg, authorization, host"} {
		r.raw("GET / HTTP/1.1\r\nHost: tool.local\r\nConnection: " + connection + "\r\n" +
			"Authorization: MC key:sig\r\nauthorization: Basic eA==\r\nProxy-Authorization: Basic eA==\r\nCookie: a=b\r\n" +
			"X-Proxy-Key: k\r\nx-mc-app-id: 1\r\nx-mc-date: d\r\nx-mc-req-id: r\r\nForwarded: for=1\r\nX-Forwarded-For: 1\r\n" +
			"X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: PUT\r\nX-Method-Override: PUT\r\nX-Original-URL: /a\r\nX-Rewrite-URL: /a\r\n" +
			"X-Forwarded-Prefix: /p\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nTE: gzip\r\n" +
			"x-mc-accountcode: C1\r\nX-Custom: kept\r\n\r\n")
		h := got.Load().(http.Header)
		want := http.Header{
			"Authorization": {"Bearer token-1"}, "X-Mc-Accountcode": {"C1"}, "X-Custom": {"kept"},
			"Host": {r.upstream.Listener.Addr().String()},
		}
		if fmt.Sprint(h) != fmt.Sprint(want) {
			t.Errorf("Connection: %s\n got %v\nwant %v", connection, h, want)
		}
	}
	r.do("POST", "/", strings.NewReader("x"), "x-mc-arg", `{"data":[]}`)
	if h := got.Load().(http.Header); h.Get("X-Mc-Arg") != `{"data":[]}` {
		t.Errorf("x-mc-arg: %v", h)
	}
}

func TestClientsTrailersStayBehind(t *testing.T) {
	var got atomic.Value
	r := newRig(t, setup{http1: true}, func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		got.Store(fmt.Sprint(req.Header["Authorization"], req.Trailer))
	})
	r.raw("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n1\r\nx\r\n0\r\nAuthorization: Bearer evil\r\n\r\n")
	if got.Load() != "[Bearer token-1] map[]" {
		t.Errorf("got %v", got.Load())
	}
}

func TestAnswerPassesUntouchedButForWhatWouldMisleadTheClient(t *testing.T) {
	r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for k, v := range map[string]string{
			"Content-Type": "application/json", "Content-Encoding": "gzip", "ETag": `"x"`, "X-Request-Id": "id-1", "Via": "1.1 google",
			"X-Ratelimit-Reset": "1750", "Alt-Svc": "h3", "Set-Cookie": "a=b", "Access-Control-Allow-Origin": "*",
			problem.Header: "forged", problem.StatusHeader: "forged", "Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Trailer": "X-Sum",
		} {
			h.Set(k, v)
		}
		w.WriteHeader(209)
		fmt.Fprint(w, "\x1f\x8bnot really gzip")
		h.Set("X-Sum", "7")
	})
	res, body := r.do("GET", "/", nil, "Accept-Encoding", "gzip")
	if res.StatusCode != 209 || body != "\x1f\x8bnot really gzip" || res.Trailer.Get("X-Sum") != "7" {
		t.Errorf("%d %q trailer %v", res.StatusCode, body, res.Trailer)
	}
	// A response with trailers has no Content-Length.
	want := "map[Content-Encoding:[gzip] Content-Type:[application/json] Date:[Mon, 01 Jan 2024 00:00:00 GMT] Etag:[\"x\"] Via:[1.1 google] X-Ratelimit-Reset:[1750] X-Request-Id:[id-1]]"
	if got := fmt.Sprint(res.Header); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestNoEncodingIsAskedForThatTheClientDidNot(t *testing.T) {
	var got atomic.Value
	r := newRig(t, setup{http1: true}, func(_ http.ResponseWriter, req *http.Request) {
		got.Store(fmt.Sprint(req.Header["Accept-Encoding"], req.Header["User-Agent"]))
	})
	r.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if got.Load() != "[] []" {
		t.Errorf("made up: %v", got.Load())
	}
}

func TestLocation(t *testing.T) {
	var location atomic.Value
	r := newRig(t, setup{prefix: "/base"}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location.Load().(string))
		w.WriteHeader(302)
	})
	up, front := r.upstream.URL, r.front.URL
	for given, want := range map[string]string{
		up + "/base/a%2Fb?c=[d]#e":                   front + "/a%2Fb?c=[d]#e",
		up + "/base":                                 front,
		strings.TrimPrefix(up, "https:") + "/base/x": front + "/x",
		up + "/other":                                up + "/other",
		up + "/basement":                             up + "/basement",
		"https://elsewhere.example/base/x":           "https://elsewhere.example/base/x",
		"http:" + strings.TrimPrefix(up, "https:") + "/base/x": front + "/x",
		"ftp:" + strings.TrimPrefix(up, "https:") + "/base/x":  "ftp:" + strings.TrimPrefix(up, "https:") + "/base/x",
		"/base/x":      front + "/x",
		"/relative":    "/relative",
		"?query":       "?query",
		"%zz://broken": "%zz://broken",
	} {
		location.Store(given)
		host := strings.TrimPrefix(front, "http://")
		if res, _ := r.raw("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"); res.Header.Get("Location") != want || res.StatusCode != 302 {
			t.Errorf("%s became %s, want %s", given, res.Header.Get("Location"), want)
		}
	}
}

func TestRejectedTokenIsReplacedAndTheRequestSentAgain(t *testing.T) {
	t.Parallel()
	sent := strings.Repeat("0123456789", 30_000)
	for name, body := range map[string]func() io.Reader{
		"no body":        func() io.Reader { return nil },
		"with a length":  func() io.Reader { return strings.NewReader(sent) },
		"without length": func() io.Reader { return io.MultiReader(strings.NewReader(sent)) },
	} {
		for _, http1 := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s HTTP/1 %v", name, http1), func(t *testing.T) {
				r := newRig(t, setup{http1: http1}, rejecting(1, echo))
				res, got := r.do("POST", "/api/x", body())
				want := sent
				if name == "no body" {
					want = ""
				}
				if res.StatusCode != 200 || got != want || r.tokens.renewals != 1 {
					t.Errorf("%d, %d bytes, %d renewals", res.StatusCode, len(got), r.tokens.renewals)
				}
				r.saw("recovered")
				if !slices.Equal(r.codes, []string{"token_expired"}) {
					t.Errorf("codes %v", r.codes)
				}
			})
		}
	}
}

func TestSecond401GoesToTheClientAsItCame(t *testing.T) {
	r := newRig(t, setup{}, rejecting(2, echo))
	res, body := r.do("GET", "/", nil)
	if res.StatusCode != 401 || body != `{"fail":[{"code":"token_expired","message":"m"}]}` || res.Header.Get(problem.Header) != "" {
		t.Errorf("%d %s %v", res.StatusCode, body, res.Header)
	}
	r.saw("still_unauthorized")
}

func Test401PassesWhereNoOtherTokenIsToBeHad(t *testing.T) {
	long := strings.Repeat("not JSON ", 20_000)
	for _, c := range []struct {
		tokens  *tokens
		outcome string
	}{
		{&tokens{renewErr: errors.New("down")}, "renewal_failed"},
		{&tokens{stuck: true}, "token_fresh"},
	} {
		r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			fmt.Fprint(w, long)
		})
		r.tokens.renewErr, r.tokens.stuck = c.tokens.renewErr, c.tokens.stuck
		if res, body := r.do("POST", "/", strings.NewReader("x")); res.StatusCode != 401 || body != long {
			t.Errorf("%s: %d, %d bytes of %d", c.outcome, res.StatusCode, len(body), len(long))
		}
		r.saw(c.outcome)
	}
}

func TestCodeOfA401(t *testing.T) {
	for body, want := range map[string]string{
		`{"fail":[{"code":"token_verification_failed"}]}`:                   "token_verification_failed",
		`{"meta":{},"fail":[{"errors":[{"code":"invalid_access_token"}]}]}`: "invalid_access_token",
		`{"fail":[]}`: "", `<html>`: "", ``: "", `null`: "",
	} {
		r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401); fmt.Fprint(w, body) })
		r.tokens.stuck = true
		if _, got := r.do("GET", "/", nil); got != body || !slices.Equal(r.codes, []string{string(event.UnauthorizedReasonOf(want))}) {
			t.Errorf("%s: code %q, body %s", body, r.codes, got)
		}
	}
}

func TestBodyAtTheLimitIsKeptAndOneOverItStreams(t *testing.T) {
	const limit = 100_000
	for _, c := range []struct {
		size    int
		chunked bool
		status  int
		outcome string
	}{
		{limit - 1, false, 200, "recovered"}, {limit, false, 200, "recovered"},
		{limit - 1, true, 200, "recovered"}, {limit, true, 200, "recovered"},
		// With Expect: 100-continue, the 401 arrives before the body is read.
		{limit + 1, false, 200, "recovered"}, {limit + 1, true, 200, "recovered"}, {limit * 20, false, 200, "recovered"}, {limit * 20, true, 200, "recovered"},
	} {
		r := newRig(t, setup{http1: true, limit: limit}, rejecting(1, echo))
		sent := strings.Repeat("x", c.size)
		var body io.Reader = strings.NewReader(sent)
		if c.chunked {
			body = io.MultiReader(body)
		}
		res, got := r.do("POST", "/", body)
		if res.StatusCode != c.status || got != sent {
			t.Errorf("%+v: %d, %d bytes", c, res.StatusCode, len(got))
		}
		r.saw(c.outcome)
	}
}

func TestLargeBodyThatIsGoneLeavesThe401ToTheClient(t *testing.T) {
	const limit = 1000
	for _, http1 := range []bool{true, false} {
		for _, chunked := range []bool{false, true} {
			// An upstream that reads the whole body before it responds with 401.
			r := newRig(t, setup{limit: limit, http1: http1}, func(w http.ResponseWriter, req *http.Request) {
				io.Copy(io.Discard, req.Body)
				rejecting(1, echo)(w, req)
			})
			var body io.Reader = bytes.NewReader(make([]byte, 50*limit))
			if chunked {
				body = io.MultiReader(body)
			}
			res, got := r.do("POST", "/", body)
			if res.StatusCode != 401 || !strings.Contains(got, "token_expired") {
				t.Errorf("%d %s", res.StatusCode, got)
			}
			r.saw("not_replayable")
			// The next request uses the new token.
			if res, _ := r.do("POST", "/", strings.NewReader("x")); res.StatusCode != 200 {
				t.Errorf("the request after: %d", res.StatusCode)
			}
		}
	}
}

func TestBodiesPastTheBudgetFlowOn(t *testing.T) {
	r := newRig(t, setup{limit: 1 << 20, memory: 100_000}, func(w http.ResponseWriter, req *http.Request) {
		sum := sha256.New()
		io.Copy(sum, req.Body)
		fmt.Fprintf(w, "%x", sum.Sum(nil))
	})
	sent := bytes.Repeat([]byte("abc"), 200_000)
	for _, body := range []io.Reader{bytes.NewReader(sent), io.MultiReader(bytes.NewReader(sent))} {
		if res, got := r.do("POST", "/", body); res.StatusCode != 200 || got != fmt.Sprintf("%x", sha256.Sum256(sent)) {
			t.Errorf("%d %s", res.StatusCode, got)
		}
	}
}

func TestContinueIsSaidOnce(t *testing.T) {
	for _, size := range []int{10, 100_000} {
		r := newRig(t, setup{http1: true, limit: 1000}, echo)
		conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", size)
		br := bufio.NewReader(conn)
		line, err := br.ReadString('\n')
		if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}
		conn.Write(make([]byte, size))
		rest, err := io.ReadAll(br)
		if err != nil || !bytes.HasPrefix(rest, []byte("\r\nHTTP/1.1 200 OK\r\n")) || bytes.Contains(rest, []byte("100 Continue")) {
			t.Errorf("%d bytes: %v, %.200q", size, err, rest)
		}
	}
}

func TestAnswerBeforeTheBodysEndIsTheConnectionsLast(t *testing.T) {
	for name, framing := range map[string]string{"length": "Content-Length: 100000\r\n\r\n", "chunks": "Transfer-Encoding: chunked\r\n\r\n186a0\r\n"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{limit: 1000}, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(413)
			})
			var said lines
			r.front.Config.ErrorLog = log.New(&said, "", 0)
			conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			body := strings.Repeat("x", 100_000)
			fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\n%s%s", framing, body[:50_000])
			from := bufio.NewReader(conn)
			res, err := http.ReadResponse(from, nil)
			if err != nil || res.StatusCode != 413 || !res.Close {
				t.Fatalf("%v %v", res, err)
			}
			// The rest of the body, and a request that must not be served.
			fmt.Fprintf(conn, "%s\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", body[50_000:])
			if _, err := io.Copy(io.Discard, from); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			r.front.Close()
			if text := said.String(); strings.Contains(text, "panic") {
				t.Error(text)
			}
		})
	}
}

// lines is a log that goroutines can write to at any time.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}
func (l *lines) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.text.String() }

func TestEarlyHintsPass(t *testing.T) {
	r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(103)
		w.Header().Del("Link")
		w.WriteHeader(403)
	})
	conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 103 ")) || !bytes.Contains(got, []byte("\r\nHTTP/1.1 403 ")) {
		t.Errorf("%v %q", err, got)
	}
}

func TestWithheldHeadersComeByNoOtherWay(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		r := newRig(t, setup{http1: http1}, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Set-Cookie", "a=b")
			h.Set("Link", "</x>; rel=preload")
			w.WriteHeader(103)
			h.Del("Set-Cookie")
			h.Set("Trailer", "Alt-Svc, X-Sum")
			w.WriteHeader(200)
			w.Write([]byte("body"))
			h.Set("Alt-Svc", "clear")
			h.Set("X-Sum", "1")
			h.Set(http.TrailerPrefix+problem.Header, "forged")
		})
		conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 103 ")) || !bytes.Contains(got, []byte("\r\nX-Sum: 1\r\n")) {
			t.Errorf("%v %q", err, got)
		}
		for _, name := range []string{"Set-Cookie", "Alt-Svc", problem.Header} {
			if bytes.Contains(got, []byte(name)) {
				t.Errorf("%s in %q", name, got)
			}
		}
	}
}

func TestMalformedBodyIsTheClientsFault(t *testing.T) {
	for _, limit := range []int64{1 << 20, 10} {
		r := newRig(t, setup{http1: true, limit: limit}, echo)
		res, body := r.raw("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\nzz\r\n")
		if res.StatusCode != 400 || res.Header.Get(problem.Header) != "bad_request_body" {
			t.Errorf("limit %d: %d %s", limit, res.StatusCode, body)
		}
	}
}

func TestUpgradeIsNotPassedOn(t *testing.T) {
	var got atomic.Value
	r := newRig(t, setup{http1: true}, func(_ http.ResponseWriter, req *http.Request) {
		got.Store(fmt.Sprint(req.Header["Upgrade"], req.Header["Connection"], req.Header["Http2-Settings"]))
	})
	res, _ := r.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n")
	if res.StatusCode != 200 || got.Load() != "[] [] []" {
		t.Errorf("%d, upstream got %v", res.StatusCode, got.Load())
	}
}

func TestUnaskedUpgradeIsNoAnswer(t *testing.T) {
	r := newRig(t, setup{http1: true}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			conn.Close()
		}
	})
	if res, _ := r.do("GET", "/", nil); res.StatusCode != 502 || res.Header.Get(problem.Header) != "upstream_reset" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

func TestTruncationReachesTheClientAsTruncation(t *testing.T) {
	for _, http1 := range []bool{true, false} {
		for _, length := range []string{"1000", ""} {
			r := newRig(t, setup{http1: http1}, func(w http.ResponseWriter, _ *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				fmt.Fprint(w, "the beginning")
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			})
			res, err := r.client.Get(r.front.URL)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil || res.StatusCode != 200 || string(body) != "the beginning" {
				t.Errorf("%d %q %v", res.StatusCode, body, err)
			}
		}
	}
}

func TestAnswerStreams(t *testing.T) {
	more := make(chan bool)
	r := newRig(t, setup{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		for range 2 {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			<-more
		}
	})
	res, err := r.client.Get(r.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 2 { // each byte arrives while the upstream holds back the next one
		if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		more <- true
	}
}

func TestNoTokenIsSaidWithoutTakingTheBody(t *testing.T) {
	r := newRig(t, setup{}, func(http.ResponseWriter, *http.Request) { t.Error("sent on without a token") })
	r.tokens.err = problem.New(event.CredentialsRefused, "check them")
	res, body := r.raw("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	if res.StatusCode != 502 || res.Header.Get(problem.Header) != "credentials_refused" || !strings.Contains(body, "check them") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestUpstreamFailures(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		r := newRig(t, setup{}, echo)
		r.upstream.Close()
		if res, _ := r.do("GET", "/", nil); res.StatusCode != 502 || res.Header.Get(problem.Header) != "upstream_unreachable" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		r := newRig(t, setup{up: func(u *upstream.Options) { u.Roots = nil }}, echo)
		if res, body := r.do("GET", "/", nil); res.Header.Get(problem.Header) != "upstream_tls" || !strings.Contains(body, "MIMECAST_CA_FILE") {
			t.Errorf("%v %s", res.Header, body)
		}
	})
	t.Run("reset before the headers", func(t *testing.T) {
		r := newRig(t, setup{http1: true}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if res, _ := r.do("POST", "/", strings.NewReader("x")); res.StatusCode != 502 || res.Header.Get(problem.Header) != "upstream_reset" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("no headers in time", func(t *testing.T) {
		r := newRig(t, setup{http1: true, up: func(u *upstream.Options) { u.ResponseTimeout = 50 * time.Millisecond }}, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		if res, _ := r.do("GET", "/", nil); res.StatusCode != 504 || res.Header.Get(problem.Header) != "upstream_timeout" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
	})
}

func TestWriteIsNotSentTwiceForAnIdempotencyKey(t *testing.T) {
	var executed atomic.Int64
	r := newRig(t, setup{http1: true}, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if req.URL.Path == "/warm" {
			return
		}
		if req.Header.Get("Idempotency-Key") != "k" {
			t.Error("the key did not arrive")
		}
		executed.Add(1)
		panic(http.ErrAbortHandler)
	})
	r.do("GET", "/warm", nil) // net/http resends only on a reused connection
	res, _ := r.do("POST", "/send", strings.NewReader("x"), "Idempotency-Key", "k")
	if executed.Load() != 1 || res.StatusCode != 502 {
		t.Errorf("executed %d times, status %d", executed.Load(), res.StatusCode)
	}
}

func TestGoneClientEndsTheUpstreamRequest(t *testing.T) {
	arrived, ended := make(chan bool), make(chan bool)
	r := newRig(t, setup{}, func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", r.front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Do(req); err == nil {
		t.Error("answered")
	}
	<-ended
}

func TestShutdownCutsWithItsReason(t *testing.T) {
	arrived := make(chan bool)
	r := newRig(t, setup{}, func(_ http.ResponseWriter, req *http.Request) { close(arrived); <-req.Context().Done() })
	ctx, cut := context.WithCancelCause(t.Context())
	front := httptest.NewUnstartedServer(r.front.Config.Handler)
	front.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	front.Start()
	defer front.Close()
	go func() { <-arrived; cut(problem.New(event.ShuttingDown, "bye")) }()
	res, err := front.Client().Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := res.Header.Get(problem.Header); got != string(event.ShuttingDown) {
		t.Errorf("got %q", got)
	}
}

func BenchmarkProxy(b *testing.B) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1024)) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	base, _ := url.Parse(server.URL)
	t := upstream.New(upstream.Options{Roots: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	defer t.CloseIdleConnections()
	front := httptest.NewServer(handler(&account.Account{BaseURL: base, Tokens: &tokens{}, Transport: t}, 1<<20, proxy.NewBudget(64<<20, nil), proxy.Trace{}))
	defer front.Close()
	client := front.Client()
	b.ReportAllocs()
	for b.Loop() {
		res, err := client.Get(front.URL)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
