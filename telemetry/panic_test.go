package telemetry_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

func TestPanicIsAnErrorAndPassedOn(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(http.ResponseWriter, *http.Request) { panic("oh\nno") }))
	if _, err := r.get("/"); err == nil {
		t.Error("answered")
	}
	line := r.line()
	if line["level"] != "error" || line["error"] != `panic: oh\nno` || line["aborted"] != "proxy" || line["status"] != 500.0 {
		t.Errorf("%v", line)
	}
	// net/http must not log the panic again.
	if strings.Contains(r.log.String(), "http: panic serving") {
		t.Errorf("%s", r.log)
	}
}

// deepPanic panics n calls deep. Its name must appear in the logged stack.
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
			defer func() { panic(recover()) }() // like middleware that recovers to clean up
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
