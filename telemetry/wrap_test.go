package telemetry_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

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
