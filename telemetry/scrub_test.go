package telemetry_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
)

// inForce are the current client secret, token and key.
var inForce = []string{
	`S3cr3t/"q\uote+%41&= of mine`,
	"eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln_-/+==",
	"kéy-😀-that-opens",
}

func newRedactor() *telemetry.Redactor {
	r := new(telemetry.Redactor)
	r.Set("client secret", secret.New(inForce[0]))
	r.Add(secret.New(inForce[1]))
	r.Set("API key", secret.New(inForce[2]))
	return r
}

// tellAll passes a text to every method that takes one, and returns all output.
func tellAll(t *testing.T, text, level, format string) (log, shown string) {
	t.Helper()
	out := &buffer{}
	redactor := newRedactor()
	w := telemetry.NewLogWriter(out, redactor)
	tel := newTelemetry(t, telemetry.Options{Output: w, Redactor: redactor, Level: level, Format: format})
	logger := tel.Logger()
	logger.Debug(text, "error", errors.New(text), "text", text, "any", []string{text})
	logger.With("with", text).WithGroup("group").Error("m", "error", errors.New(text), "text", text)
	tel.StdLog("debug").Print(text)
	tel.StdLog("error").Print(text)
	tel.TokenDone("default", "expiry", "unavailable", time.Second, time.Time{}, errors.New(text))
	h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown += telemetry.RequestID(r.Context()) + "\n"
		tel.Answered(r.Context(), 200, http.Header{"X-Request-Id": {text}}, time.Second)
		tel.Denied(r.Context(), "host_not_allowed", true)
		tel.Failed(r.Context(), problem.New(event.UpstreamReset, "x").Because(errors.New(text)))
		w.WriteHeader(502)
	}))
	h.ServeHTTP(discard{}, &http.Request{
		Method: text, URL: &url.URL{Path: text, RawPath: text}, RemoteAddr: "127.0.0.1:1", Header: http.Header{"X-Request-Id": {text}, "Traceparent": {text}},
	})
	snap, err := json.Marshal(tel.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	return out.String(), shown + string(snap) + "\n" + redactor.Redact(text)
}

func FuzzNoSecretComesOut(f *testing.F) {
	for i := range encodings {
		f.Add("http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=", `\"`, uint8(i), uint8(i), uint8(i))
		f.Add("%", "41", uint8(i), uint8(i+1), uint8(1))
	}
	f.Add(strings.Repeat("x", 1020), strings.Repeat("y", 9000), uint8(0), uint8(1), uint8(3))
	f.Add(strings.Repeat(`\`, 4090), "%", uint8(1), uint8(0), uint8(2))
	f.Fuzz(func(t *testing.T, before, after string, encoding, which, level uint8) {
		s := inForce[int(which)%len(inForce)]
		e := encodings[int(encoding)%len(encodings)]
		levels := []string{"trace", "debug", "info", "warn", "error"}
		format := []string{"json", "console"}[int(level)/len(levels)%2]
		log, shown := tellAll(t, before+e.encode(s)+after, levels[int(level)%len(levels)], format)
		for _, form := range forms(s) {
			for name, text := range map[string]string{"the log": log, "what is shown": shown} {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("%s of %q: %s has %q: …%q", e.name, s, name, form, text[max(0, i-60):min(len(text), i+100)])
				}
			}
		}
		for line := range strings.Lines(log) {
			if format == "json" && !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %q", line)
			}
		}
	})
}

// Any printable characters may be in a secret. Package config rejects others.
func FuzzRedactorWithAnySecret(f *testing.F) {
	for i, s := range awkward {
		f.Add(s, "%", `25"`, uint8(i))
	}
	f.Fuzz(func(t *testing.T, s, before, after string, encoding uint8) {
		if len(s) < 8 || len(s) > 200 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || strings.Trim(s, `"=\ %+`) != s {
			t.Skip()
		}
		e := encodings[int(encoding)%len(encodings)]
		r := new(telemetry.Redactor)
		r.Set("client secret", secret.New(s))
		text := before + e.encode(s) + after
		got := r.Redact(text)
		if form := strings.Trim(e.encode(s), `"=\`); strings.Contains(got, form) && !strings.Contains("[redacted]", form) {
			t.Errorf("%s of %q: %q shows %q", e.name, s, got, form)
		}
		if got == text {
			t.Errorf("%s of %q: %q stays", e.name, s, text)
		}
	})
}

func FuzzScrub(f *testing.F) {
	f.Add("before ", "after")
	f.Add("\x80Bearer", "\n")
	f.Add("https://a:", "@h/?")
	f.Fuzz(func(t *testing.T, before, after string) {
		const token = "0SECRETSECRET"
		got := telemetry.Scrub(before + " Bearer " + token + " " + after)
		if strings.Contains(got, token) {
			t.Errorf("%q", got)
		}
		if len(got) > 1100 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not fit to be shown: %q", got)
		}
	})
}
