package telemetry_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// rig is a handler behind telemetry, on a real listener.
type rig struct {
	*testing.T
	*telemetry.Telemetry
	log    *buffer
	server *httptest.Server
	client *http.Client
}

func newTelemetry(t testing.TB, o telemetry.Options) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// newRig serves what h returns, which may use the telemetry's hooks.
func newRig(t *testing.T, o telemetry.Options, h func(*telemetry.Telemetry) http.HandlerFunc) *rig {
	t.Helper()
	r := &rig{T: t, log: &buffer{}}
	o.Output = r.log
	r.Telemetry = newTelemetry(t, o)
	r.server = httptest.NewUnstartedServer(r.Wrap(h(r.Telemetry)))
	r.server.Config.ErrorLog = r.StdLog("error")
	r.server.Start()
	r.client = r.server.Client()
	t.Cleanup(r.end)
	return r
}

// end waits until every request was observed: the client may have its answer
// a moment earlier.
func (r *rig) end() {
	r.client.CloseIdleConnections()
	r.server.Close()
}

func (r *rig) get(path string, header ...string) (*http.Response, error) {
	return r.do("GET", path, nil, header...)
}

// do sends a request and reads the answer; an error is the client's.
func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.Context(), method, r.server.URL+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	res.Body = io.NopCloser(bytes.NewReader(read))
	return res, err
}

// raw sends bytes that no client library would, and returns all that comes.
func (r *rig) raw(request string) string {
	r.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		r.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		r.Fatal(err)
	}
	return string(got)
}

// lines returns the log's lines with a message, once all requests are over.
func (r *rig) lines(msg string) []map[string]any {
	r.Helper()
	r.end()
	var lines []map[string]any
	for text := range strings.Lines(r.log.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			r.Fatalf("%v in %q", err, text)
		}
		if line["msg"] == msg {
			lines = append(lines, line)
		}
	}
	return lines
}

// line returns the one access line.
func (r *rig) line() map[string]any {
	r.Helper()
	lines := r.lines("request")
	if len(lines) != 1 {
		r.Fatalf("%d access lines, want 1: %s", len(lines), r.log)
	}
	return lines[0]
}

// scrape returns the metrics as text, and the value of one series.
func scrape(t testing.TB, tel *telemetry.Telemetry) string {
	t.Helper()
	s := httptest.NewServer(tel.Metrics())
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %v %s", res.StatusCode, err, text)
	}
	return string(text)
}

// hasSeries reports on each line that the metrics lack. Lines are without the
// prefix.
func hasSeries(t testing.TB, metrics string, want ...string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains(metrics, "\nmimecast_proxy_"+line+"\n") {
			t.Errorf("no %s in\n%s", line, ours(metrics))
		}
	}
}

func ours(metrics string) string {
	var b strings.Builder
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "mimecast_proxy_") && !strings.Contains(line, "_bucket") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func just(h http.HandlerFunc) func(*telemetry.Telemetry) http.HandlerFunc {
	return func(*telemetry.Telemetry) http.HandlerFunc { return h }
}

func TestAccessLineHasTheContractsFields(t *testing.T) {
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			tel.Answered(req.Context(), 200, http.Header{}, 2*time.Millisecond)
			io.WriteString(w, "answer")
		}
	})
	if _, err := r.do("POST", "/a/b%2Fc?secret=1", strings.NewReader("body"), "X-Request-Id", "abc-1"); err != nil {
		t.Fatal(err)
	}
	line := r.line()
	want := map[string]any{
		"level": "info", "msg": "request", "request_id": "abc-1", "method": "POST", "path": "/a/b%2Fc", "status": 200.0,
		"bytes_in": 4.0, "bytes_out": 6.0, "upstream_ms": 2.0, "retried": false, "client": "127.0.0.1",
	}
	for field, value := range want {
		if line[field] != value {
			t.Errorf("%s is %v, want %v", field, line[field], value)
		}
	}
	if len(line) != len(want)+2 {
		t.Errorf("fields %v", line)
	}
	if ms, ok := line["duration_ms"].(float64); !ok || ms <= 0 {
		t.Errorf("duration_ms %v", line["duration_ms"])
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", line["time"].(string))
	if err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("time %v: %v", line["time"], err)
	}
}

func TestOptionalFieldsAppearOnlyWhenPresent(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			tel.Route(req.Context(), "GET /x/")
			tel.Answered(req.Context(), 401, http.Header{"X-Request-Id": {"m-1"}}, time.Millisecond)
			tel.Answered(req.Context(), 200, http.Header{"X-Request-Id": {"m-2"}}, time.Millisecond)
			tel.Retried(req.Context(), "recovered")
			tel.Failed(req.Context(), problem.New(event.UpstreamReset, "it closed").Because(io.EOF))
			w.WriteHeader(502)
		}
	})
	if _, err := r.get("/x/y", "Traceparent", "00-"+trace+"-b7ad6b7169203331-01"); err != nil {
		t.Fatal(err)
	}
	line := r.line()
	for field, want := range map[string]any{
		"level": "warn", "error": "upstream_reset: it closed: EOF", "route": "GET /x/", "trace_id": trace,
		"mimecast_request_id": "m-2", "retried": true, "upstream_ms": 2.0,
	} {
		if line[field] != want {
			t.Errorf("%s is %v, want %v", field, line[field], want)
		}
	}
	if len(line) != 17 {
		t.Errorf("%d fields: %v", len(line), line)
	}
}

func TestEarlyHintsAreNotTheStatus(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(403)
	}))
	got := r.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 103 ") || !strings.Contains(got, "\r\nHTTP/1.1 403 ") {
		t.Errorf("the client got %q", got)
	}
	if status := r.line()["status"]; status != 403.0 {
		t.Errorf("logged %v", status)
	}
	hasSeries(t, scrape(t, r.Telemetry), `requests_total{code="403",method="GET"} 1`)
}

func TestAbortedAnswerIsCountedAndStaysTruncated(t *testing.T) {
	for _, begun := range []bool{true, false} {
		r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, _ *http.Request) {
			if begun {
				io.WriteString(w, "half")
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		}))
		res, err := r.get("/")
		if err == nil {
			t.Errorf("begun %v: the client took %d for complete", begun, res.StatusCode)
		}
		status := map[bool]int{true: 200, false: 500}[begun]
		line := r.line()
		if line["aborted"] != "upstream" || line["status"] != float64(status) || line["level"] != "warn" {
			t.Errorf("begun %v: %v", begun, line)
		}
		hasSeries(t, scrape(t, r.Telemetry),
			fmt.Sprintf(`requests_total{code="%d",method="GET"} 1`, status),
			`requests_aborted_total{by="upstream"} 1`, "request_duration_seconds_count 1", "requests_in_flight 0")
	}
}

func TestPanicIsAnErrorAndPassedOn(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(http.ResponseWriter, *http.Request) { panic("oh\nno") }))
	if _, err := r.get("/"); err == nil {
		t.Error("answered")
	}
	line := r.line()
	if line["level"] != "error" || line["error"] != `panic: oh\nno` || line["aborted"] != "proxy" || line["status"] != 500.0 {
		t.Errorf("%v", line)
	}
	// net/http has nothing to add.
	if strings.Contains(r.log.String(), "http: panic serving") {
		t.Errorf("%s", r.log)
	}
}

// deepPanic is found by its name in a stack.
func deepPanic(n int) {
	if n == 0 {
		panic(fmt.Sprintf("boom with %s inside", "a-secret-of-the-account"))
	}
	deepPanic(n - 1)
}

func TestPanicIsLoggedWithItsWholeStack(t *testing.T) {
	for _, o := range []telemetry.Options{{Level: "error"}, {Level: "debug"}, {Level: "warn", Format: "console"}} {
		redactor := new(telemetry.Redactor)
		redactor.Set("client secret", secret.New("a-secret-of-the-account"))
		o.Redactor = redactor
		r := newRig(t, o, just(func(http.ResponseWriter, *http.Request) {
			defer func() { panic(recover()) }() // as a middleware does that tidies up
			deepPanic(40)
		}))
		if _, err := r.get("/", "X-Request-Id", "id-1"); err == nil {
			t.Error("answered")
		}
		r.end()
		log := r.log.String()
		if n := strings.Count(log, "telemetry_test.deepPanic("); n < 41 {
			t.Errorf("%+v: %d of 41 frames: %s", o, n, log)
		}
		if strings.Contains(log, "a-secret") || !strings.Contains(log, "boom with [redacted] inside") {
			t.Errorf("%+v: %s", o, log)
		}
		for line := range strings.Lines(log) {
			if o.Format == "" && !json.Valid([]byte(line)) || !strings.Contains(line, "id-1") {
				t.Errorf("%+v: %q", o, line)
			}
		}
		if o.Format == "" {
			if line := r.lines("panic"); len(line) != 1 || line[0]["level"] != "error" || !strings.HasPrefix(line[0]["stack"].(string), "goroutine ") {
				t.Errorf("%v", line)
			}
		}
	}
}

func TestPanicElsewhereIsLoggedToo(t *testing.T) {
	log := &buffer{}
	tel := newTelemetry(t, telemetry.Options{Output: log, Level: "error"})
	s := httptest.NewUnstartedServer(tel.Recover(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		deepPanic(0)
	})))
	s.Config.ErrorLog = tel.StdLog("error")
	s.Start()
	defer s.Client().CloseIdleConnections()
	for _, path := range []string{"/", "/abort"} {
		if _, err := s.Client().Get(s.URL + path); err == nil {
			t.Error("answered")
		}
	}
	s.Close()
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "deepPanic") {
		t.Errorf("%q", text)
	}
}

func TestClientThatLeavesIs499(t *testing.T) {
	arrived := make(chan bool)
	for _, h := range []http.HandlerFunc{
		func(w http.ResponseWriter, req *http.Request) { // as the proxy answers
			arrived <- true
			<-req.Context().Done()
			w.WriteHeader(499)
		},
		func(_ http.ResponseWriter, req *http.Request) { // as ReverseProxy ends
			arrived <- true
			<-req.Context().Done()
			panic(http.ErrAbortHandler)
		},
	} {
		r := newRig(t, telemetry.Options{}, just(h))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.client.Do(req); err == nil {
			t.Error("answered")
		}
		if line := r.line(); line["status"] != 499.0 || line["aborted"] != "client" || line["level"] != "info" {
			t.Errorf("%v", line)
		}
		hasSeries(t, scrape(t, r.Telemetry), `requests_total{code="499",method="GET"} 1`, `requests_aborted_total{by="client"} 1`)
	}
}

func TestClientThatLeavesMidAnswerIsAborted(t *testing.T) {
	begun := make(chan bool)
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		close(begun)
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return // and does not say so
			}
		}
	}))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-begun
	conn.Close()
	if line := r.line(); line["status"] != 200.0 || line["aborted"] != "client" {
		t.Errorf("%v", line)
	}
}

func TestClientThatReadItAllAndLeftIsNotAborted(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ok")
		w.(http.Flusher).Flush()
		<-req.Context().Done() // the client has closed before the handler is done
	}))
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
		t.Errorf("%q %v", body, err)
	}
	conn.Close()
	if line := r.line(); line["status"] != 200.0 || line["aborted"] != nil {
		t.Errorf("%v", line)
	}
}

func TestCountersEqualWhatTheClientsCounted(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/cut":
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/drop":
			panic(http.ErrAbortHandler)
		case "/early":
			w.WriteHeader(103)
			w.WriteHeader(404)
		case "/none":
			w.WriteHeader(204)
		default:
			io.Copy(w, req.Body)
		}
	}))
	paths := []string{"/", "/cut", "/early", "/none", "/drop"}
	var counted [5]atomic.Int64
	var clients sync.WaitGroup
	for i := range 100 {
		clients.Go(func() {
			for range 5 {
				kind := i % len(paths)
				res, err := r.do("POST", paths[kind], strings.NewReader("hello"))
				switch {
				case kind == 1 && res != nil && res.StatusCode == 200 && err != nil,
					kind == 4 && res == nil && err != nil,
					err == nil && res.StatusCode == []int{200, 0, 404, 204}[kind]:
					counted[kind].Add(1)
				default:
					t.Errorf("%s: %v %v", paths[kind], res, err)
				}
			}
		})
	}
	clients.Wait()
	r.end()
	hasSeries(t, scrape(t, r.Telemetry),
		fmt.Sprintf(`requests_total{code="200",method="POST"} %d`, counted[0].Load()+counted[1].Load()),
		fmt.Sprintf(`requests_total{code="404",method="POST"} %d`, counted[2].Load()),
		fmt.Sprintf(`requests_total{code="204",method="POST"} %d`, counted[3].Load()),
		fmt.Sprintf(`requests_total{code="500",method="POST"} %d`, counted[4].Load()),
		fmt.Sprintf(`requests_aborted_total{by="upstream"} %d`, counted[1].Load()+counted[4].Load()),
		"request_duration_seconds_count 500", "requests_in_flight 0")
	if n := len(r.lines("request")); n != 500 {
		t.Errorf("%d lines", n)
	}
	if snap := r.Snapshot(); snap.Total != 500 || len(snap.Requests) != 200 {
		t.Errorf("%d in all, %d remembered", snap.Total, len(snap.Requests))
	}
}

func TestPathCannotForgeALine(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		r := newRig(t, telemetry.Options{Format: format}, just(func(http.ResponseWriter, *http.Request) {}))
		r.raw("GET /a%0a%7B%22level%22:%22error%22%7D%1b[31m%00\xe2\x80\xae\xff\"x HTTP/1.1\r\nHost: h\r\nX-Request-Id: a\tb\r\nConnection: close\r\n\r\n")
		r.raw("GET /" + strings.Repeat("long", 1000) + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		r.raw("OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		r.raw("GET http://user:pass@h/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		r.end()
		log := r.log.String()
		if strings.Count(log, "\n") > 4 || len(log) > 4*1600 || strings.ContainsAny(log, "\x1b\x00\x7f\u202e") || !utf8.ValidString(log) || strings.Contains(log, "pass") {
			t.Errorf("%s: %q", format, log)
		}
		if format == "json" {
			if lines := r.lines("request"); len(lines) < 3 || lines[0]["path"] != "/a%0A%7B%22level%22:%22error%22%7D%1B%5B31m%00%E2%80%AE%FF%22x" {
				t.Errorf("%q", lines)
			}
		}
	}
}

func TestNothingOfTheClientsShows(t *testing.T) {
	const mark = "MARKED"
	r := newRig(t, telemetry.Options{Level: "debug"}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			ctx := req.Context()
			tel.Answered(ctx, 200, http.Header{"X-Request-Id": {"MARKED MARKED"}, "X-Ratelimit-Limit": {mark}, "X-Secret": {mark}}, time.Millisecond)
			tel.Unauthorized(ctx, event.UnauthorizedReasonOf(mark))
			tel.Failed(ctx, problem.New(event.UpstreamReset, "x").Because(errors.New("Get \"https://user:MARKED@h/p?q=MARKED\": Authorization: Bearer MARKED")))
			tel.TokenStart(event.TriggerExpiry)
			tel.TokenDone(event.TriggerExpiry, event.TokenFailed, time.Second, time.Time{}, errors.New("sent bearer MARKED to http://h/?client_secret=MARKED"))
			tel.StdLog("warn").Printf("malformed HTTP response \"MARKED\"")
			tel.Logger().Error("x", "error", errors.New("Bearer MARKED"))
			w.Header().Set("X-Secret", mark)
			io.WriteString(w, mark)
		}
	})
	if _, err := r.do("POST", "/p?q=MARKED", strings.NewReader(mark), "Authorization", "Bearer MARKED", "X-Api", mark,
		"X-Request-Id", "MARKED 1", "Traceparent", mark, "Cookie", "a=MARKED"); err != nil {
		t.Fatal(err)
	}
	r.do(mark, "/", nil)
	r.end()
	snap, err := json.Marshal(r.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	// The method is the client's to choose, and shows in the log only.
	log := strings.ReplaceAll(r.log.String(), `"method":"MARKED"`, "")
	shown := strings.NewReplacer(`"method":"MARKED"`, "", `"last_method":"MARKED"`, "").Replace(string(snap))
	for name, text := range map[string]string{"log": log, "metrics": scrape(t, r.Telemetry), "snapshot": shown} {
		if i := strings.Index(text, mark); i >= 0 {
			t.Errorf("%s shows it: …%s…", name, text[max(0, i-80):min(len(text), i+20)])
		}
	}
}

func TestAnswersWithoutABody(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/204":
			w.WriteHeader(204)
			w.Write([]byte("ignored"))
		case "/304":
			w.WriteHeader(304)
		case "/empty":
		default:
			io.WriteString(w, "body")
		}
	}))
	for _, target := range []string{"HEAD /", "GET /204", "GET /304", "GET /empty", "GET /"} {
		method, path, _ := strings.Cut(target, " ")
		if _, err := r.do(method, path, nil); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	lines := r.lines("request")
	for i, want := range []struct {
		method      string
		status, out float64
	}{{"HEAD", 200, 0}, {"GET", 204, 0}, {"GET", 304, 0}, {"GET", 200, 0}, {"GET", 200, 4}} {
		line := lines[i]
		if line["method"] != want.method || line["status"] != want.status || line["bytes_out"] != want.out || line["aborted"] != nil {
			t.Errorf("%v: %v", want, line)
		}
	}
}

func TestConnectionIsKeptAlive(t *testing.T) {
	var conns atomic.Int64
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) { io.Copy(w, req.Body) }))
	dial := (&net.Dialer{}).DialContext
	r.client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conns.Add(1)
		return dial(ctx, network, addr)
	}}
	for range 10 {
		if _, err := r.do("POST", "/", strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

func TestClientThatLeavesBeforeItsAnswerIs499WhateverTheAnswer(t *testing.T) {
	arrived := make(chan bool)
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) { // as a 401 is passed on whose renewal was not awaited
			tel.Answered(req.Context(), 401, http.Header{}, time.Millisecond)
			arrived <- true
			<-req.Context().Done()
			w.WriteHeader(401)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Do(req); err == nil {
		t.Error("answered")
	}
	if line := r.line(); line["status"] != 499.0 || line["aborted"] != "client" || line["level"] != "info" {
		t.Errorf("%v", line)
	}
	if got := r.Snapshot().Requests[0]; got.Fault != "client_gone" {
		t.Errorf("%+v", got)
	}
}

func TestRequestWithoutABodyKeepsNone(t *testing.T) {
	var none atomic.Bool
	r := newRig(t, telemetry.Options{}, just(func(_ http.ResponseWriter, req *http.Request) { none.Store(req.Body == http.NoBody) }))
	if _, err := r.get("/"); err != nil || !none.Load() {
		t.Errorf("%v, NoBody %v", err, none.Load())
	}
}

func TestWriterKeepsWhatNetHTTPOffers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(file, bytes.Repeat([]byte("0123456789abcdef"), 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		c := http.NewResponseController(w)
		if err := errors.Join(c.EnableFullDuplex(), c.SetWriteDeadline(time.Now().Add(time.Hour)), c.Flush()); err != nil {
			t.Error(err)
		}
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("no ReadFrom")
		}
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := io.Copy(w, f); err != nil {
			t.Error(err)
		}
	}))
	res, err := r.get("/")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(res.Body); len(got) != 1<<20 {
		t.Errorf("%d bytes", len(got))
	}
	if line := r.line(); line["bytes_out"] != float64(1<<20) {
		t.Errorf("%v", line)
	}
}

func TestWriterCopiesWhereThereIsNoReadFrom(t *testing.T) {
	inner := http.NewServeMux()
	tel := newTelemetry(t, telemetry.Options{})
	inner.Handle("/", tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { io.Copy(w, strings.NewReader("copied")) })))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		inner.ServeHTTP(struct{ http.ResponseWriter }{w}, req)
	}))
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); string(got) != "copied" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestUpgradedConnectionIs101(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
		conn.Close()
	}))
	r.raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	// The server no longer knows the connection, so end does not wait for it.
	for tick := time.Tick(time.Millisecond); r.Snapshot().Total == 0; {
		<-tick
	}
	if line := r.line(); line["status"] != 101.0 {
		t.Errorf("%v", line)
	}
}

func TestHooksMayComeLateAndFromElsewhere(t *testing.T) {
	var late sync.WaitGroup
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, req *http.Request) {
			for range 4 {
				late.Go(func() {
					for range 100 {
						tel.Answered(req.Context(), 200, http.Header{"X-Ratelimit-Remaining": {"1"}}, time.Microsecond)
						tel.Failed(req.Context(), problem.New(event.UpstreamReset, "x"))
						tel.Route(req.Context(), "y")
						tel.Denied(req.Context(), "too_busy", false)
						tel.ReplayBytes(1)
						tel.ReplayBytes(-1)
						tel.Snapshot()
					}
				})
			}
		}
	})
	for range 5 {
		if _, err := r.get("/"); err != nil {
			t.Fatal(err)
		}
	}
	late.Wait()
	hasSeries(t, scrape(t, r.Telemetry), `requests_denied_total{reason="too_busy"} 2000`, "replay_buffer_bytes 0", "upstream_duration_seconds_count 2000")
}

func TestHooksOutsideARequestCount(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.Denied(t.Context(), "host_not_allowed", false)
	tel.Failed(t.Context(), problem.New(event.UpstreamReset, "x"))
	hasSeries(t, scrape(t, tel), `requests_denied_total{reason="host_not_allowed"} 1`)
}

func TestRequestIDIsTheClientsOrANewOne(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(_ http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("X-Request-Id"); got != "" && got != req.Header.Get("X-Sent") {
			t.Errorf("the request was changed: %q", got)
		}
	}))
	long := strings.Repeat("x", 129)
	for _, id := range []string{"", "ok-1", "a b", "é", long, long[:128]} {
		if _, err := r.get("/", "X-Request-Id", id, "X-Sent", id); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, line := range r.lines("request") {
		ids = append(ids, line["request_id"].(string))
	}
	for i, made := range []bool{true, false, true, true, true, false} {
		if made != (len(ids[i]) == 16) {
			t.Errorf("%d: %q", i, ids[i])
		}
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 6 {
		t.Errorf("not unique: %v", ids)
	}
}

func TestTraceIDIsThatOfAValidTraceparent(t *testing.T) {
	const id, rest = "0af7651916cd43dd8448eb211c80319c", "-b7ad6b7169203331-01"
	zero := strings.Repeat("0", 32)
	r := newRig(t, telemetry.Options{}, just(func(http.ResponseWriter, *http.Request) {}))
	headers := map[string]string{
		"00-" + id + rest:                    id,
		"cc-" + id + rest + "-future":        id,
		"00-" + id + rest + "-more":          "",
		"cc-" + id + rest + "future":         "",
		"ff-" + id + rest:                    "",
		"00-" + strings.ToUpper(id) + rest:   "",
		"00-" + zero + rest:                  "",
		"00-" + id + "-0000000000000000-01":  "",
		"00_" + id + rest:                    "",
		"00-" + id[1:] + rest:                "",
		"0g-" + id + rest:                    "",
		"00-" + id + "-b7ad6b7169203331-0\"": "",
	}
	var want []string
	for header, trace := range headers {
		if _, err := r.get("/", "Traceparent", header); err != nil {
			t.Fatal(err)
		}
		want = append(want, trace)
	}
	if _, err := r.get("/", "Traceparent", "00-"+id+rest, "Traceparent", "00-"+id+rest); err != nil {
		t.Fatal(err)
	}
	for i, line := range r.lines("request") {
		if got, _ := line["trace_id"].(string); i < len(want) && got != want[i] || i == len(want) && got != "" {
			t.Errorf("%d: %q", i, got)
		}
	}
}

func TestRequestCutByTheProxyIsTheProxys(t *testing.T) {
	base, cut := context.WithCancelCause(context.Background())
	tel := newTelemetry(t, telemetry.Options{})
	arrived := make(chan bool)
	s := httptest.NewUnstartedServer(tel.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	})))
	s.Config.BaseContext = func(net.Listener) context.Context { return base }
	s.Start()
	defer s.Client().CloseIdleConnections()
	go func() { <-arrived; cut(errors.New("shutting down")) }()
	if _, err := s.Client().Get(s.URL); err == nil {
		t.Error("answered")
	}
	s.Close()
	hasSeries(t, scrape(t, tel), `requests_aborted_total{by="proxy"} 1`, `requests_total{code="500",method="GET"} 1`)
}

func TestOwnErrorResponsesBearTheLogsID(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/own" {
			problem.New(event.UpstreamReset, "reset").ServeHTTP(w, req)
			return
		}
		w.Header().Set("X-Request-Id", "mimecasts")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	var sent []string
	for _, id := range []string{"", "abc-1", strings.Repeat("x", 1000)} {
		res, err := r.get("/own", "X-Request-Id", id)
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, res.Header.Get("X-Request-Id"))
		if res, err = r.get("/", "X-Request-Id", id); err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("X-Request-Id"); got != "mimecasts" {
			t.Errorf("Mimecast's is %q", got)
		}
	}
	if sent[1] != "abc-1" {
		t.Errorf("the client's is %q", sent[1])
	}
	var logged []string
	for _, line := range r.lines("request") {
		if line["path"] == "/own" {
			logged = append(logged, line["request_id"].(string))
		}
	}
	if !slices.Equal(logged, sent) {
		t.Errorf("logged %q, sent %q", logged, sent)
	}
}
