package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/telemetry"
)

// Every kind of line must have the fields that Cloud Logging reads, and neither level
// nor msg.
func TestGCPFormatHasSeverityAndMessage(t *testing.T) {
	var out bytes.Buffer
	tel := newTelemetry(t, telemetry.Options{Output: &out, Format: "gcp", Level: "trace", Terminal: true})
	log := tel.Logger()
	log.Debug("a debug line")
	log.Info("an info line")
	log.With("a", 1).WithGroup("g").Warn("a warning", "level", "fatal")
	log.Error("an error")
	tel.StdLog("warn").Print("http: of the standard library")
	tel.TokenDone("default", "startup", "ok", time.Second, time.Now().Add(time.Hour), nil)
	tel.TokenDone("default", "expiry", "refused", time.Second, time.Time{}, errors.New("refused"))
	served := func(status int, do func()) {
		h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			do()
		}))
		defer func() { _ = recover() }() // one of the handlers panics
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/identity/whoami", nil))
	}
	served(http.StatusOK, func() {})
	served(http.StatusOK, func() { panic("a bug") })

	severities := map[string]string{}
	for text := range strings.Lines(out.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		message, _ := line["message"].(string)
		severity, _ := line["severity"].(string)
		at, err := time.Parse(time.RFC3339, line["time"].(string))
		if _, offset := at.Zone(); message == "" || err != nil || offset != 0 || line["msg"] != nil || line["level"] != nil {
			t.Errorf("%s", text)
		}
		severities[message] = severity
	}
	want := map[string]string{
		"a debug line": "DEBUG", "an info line": "INFO", "a warning": "WARNING", "an error": "ERROR", "http: of the standard library": "WARNING",
		"token renewed": "INFO", "token request failed": "ERROR", "request": "ERROR", "panic": "ERROR",
	}
	if !maps.Equal(severities, want) {
		t.Errorf("%v, want %v", severities, want)
	}
	if first := slices.Collect(strings.Lines(out.String()))[0]; !strings.HasPrefix(first, `{"severity":"DEBUG",`) || strings.Count(out.String(), `"message":"request"`) != 2 {
		t.Errorf("%s", out.String())
	}
}

func TestGCPFormatTellsOfDroppedLines(t *testing.T) {
	var out gate
	out.shut.Lock()
	w := telemetry.NewLogWriter(&out, nil)
	tel := newTelemetry(t, telemetry.Options{Output: w, Format: "gcp"})
	for range 2000 {
		tel.Logger().Info(strings.Repeat("x", 1000))
	}
	out.shut.Unlock()
	w.Close()
	if text := out.String(); !strings.Contains(text, `{"severity":"WARNING",`) || !strings.Contains(text, `"message":"log lines dropped"`) {
		t.Errorf("%.300s", text[max(0, len(text)-300):])
	}
}
