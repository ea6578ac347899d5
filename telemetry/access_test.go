package telemetry_test

import (
	"io"
	"net/http"
	"strings"
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
		"bytes_in": 4.0, "bytes_out": 6.0, "upstream_ms": 2.0, "retried": false, "peer": "127.0.0.1",
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
