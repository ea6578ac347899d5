package telemetry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

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
	// The server no longer tracks the hijacked connection, so end does not wait for it.
	for tick := time.Tick(time.Millisecond); r.Snapshot().Total == 0; {
		<-tick
	}
	if line := r.line(); line["status"] != 101.0 {
		t.Errorf("%v", line)
	}
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
