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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/telemetry"
)

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
		func(w http.ResponseWriter, req *http.Request) { // like the proxy's own response
			arrived <- true
			<-req.Context().Done()
			w.WriteHeader(499)
		},
		func(_ http.ResponseWriter, req *http.Request) { // like ReverseProxy
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
				return // without reporting the error
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
		<-req.Context().Done() // the client disconnects before the handler returns
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
		return func(w http.ResponseWriter, req *http.Request) { // like a 401 passed on without waiting for the token renewal
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
