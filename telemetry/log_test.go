package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"

	"mimecast-proxy/telemetry"
)

// nested converts dotted names of groups into nested maps.
func nested(line map[string]any) map[string]any {
	out := map[string]any{}
	for name, value := range line {
		at := out
		for group, rest, ok := strings.Cut(name, "."); ok; group, rest, ok = strings.Cut(name, ".") {
			if at[group] == nil {
				at[group] = map[string]any{}
			}
			at, name = at[group].(map[string]any), rest
		}
		at[name] = value
	}
	return out
}

func TestLoggerKeepsSlogsRules(t *testing.T) {
	var out bytes.Buffer
	tel := newTelemetry(t, telemetry.Options{Output: &out, Level: "debug"})
	err := slogtest.TestHandler(tel.Logger().Handler(), func() []map[string]any {
		var lines []map[string]any
		for text := range strings.Lines(out.String()) {
			var line map[string]any
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, nested(line))
		}
		return lines
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLevelIsHeeded(t *testing.T) {
	all := []string{"debug", "info", "warn", "error"}
	for i, level := range all {
		var out bytes.Buffer
		tel := newTelemetry(t, telemetry.Options{Output: &out, Level: level})
		log := tel.Logger()
		log.Debug("m", "at", "debug")
		log.Info("m", "at", "info")
		log.Warn("m", "at", "warn")
		log.Error("m", "at", "error")
		for _, name := range all {
			tel.StdLog(name).Print("std")
		}
		for j, name := range all {
			want := map[bool]int{true: 2, false: 0}[j >= i]
			if got := strings.Count(out.String(), `"level":"`+name+`"`); got != want {
				t.Errorf("at %s: %d lines of %s, want %d", level, got, name, want)
			}
		}
		if log.Enabled(t.Context(), slog.LevelDebug) != (level == "debug") {
			t.Errorf("Enabled at %s", level)
		}
	}
}

// The help lists trace as a level, so it must be accepted.
func TestTraceShowsWhatDebugShows(t *testing.T) {
	var out bytes.Buffer
	newTelemetry(t, telemetry.Options{Output: &out, Level: "trace"}).Logger().Debug("m")
	if !strings.Contains(out.String(), `"level":"debug"`) {
		t.Errorf("%q", out.String())
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for _, o := range []telemetry.Options{{Level: "loud"}, {Format: "xml"}} {
		if _, err := telemetry.New(o); err == nil || !strings.Contains(err.Error(), "choose") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestFormatAutoIsConsoleOnATerminalOnly(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		tel := newTelemetry(t, telemetry.Options{Output: &out, Format: "auto", Terminal: terminal})
		tel.Logger().Info("hello", "a", "b c")
		if json.Valid(out.Bytes()) == terminal || strings.Count(out.String(), "hello") != 1 {
			t.Errorf("terminal %v: %q", terminal, out.String())
		}
	}
}

func TestConsoleLineReads(t *testing.T) {
	var out bytes.Buffer
	tel := newTelemetry(t, telemetry.Options{Output: &out, Format: "console"})
	tel.Logger().Warn("line\nbreak", "error", errors.New("a\nb"), "path", "/x")
	line := out.String()
	if _, rest, _ := strings.Cut(line, " "); rest != "WRN line\\nbreak path=/x error=\"a\\\\nb\"\n" {
		t.Errorf("%q", line)
	}
}

func TestStdLogIsScrubbed(t *testing.T) {
	var out bytes.Buffer
	tel := newTelemetry(t, telemetry.Options{Output: &out})
	tel.StdLog("warn").Printf("http: panic serving 127.0.0.1: boom\ngoroutine 1\nbearer %s", "SECRET")
	var line map[string]string
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line["msg"] != `http: panic serving 127.0.0.1: boom\ngoroutine 1\nbearer [redacted]` || line["level"] != "warn" {
		t.Errorf("%v", line)
	}
}

func TestScrub(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		" plain\n":                             "plain",
		"a\tb\x00\x1b[31m\u2028\xff":           `a\tb\x00\x1b[31m\u2028` + "\ufffd",
		"Bearer abc.def":                       "Bearer [redacted]",
		"x BEARER: abc, bearer\tdef; rest":     "x BEARER [redacted], bearer [redacted]; rest",
		`{"t":"Bearer abc"}`:                   `{"t":"Bearer [redacted]"}`,
		"bearer%20abc def":                     "bearer [redacted] def",
		"not allowed in a bearer token":        "not allowed in a bearer token",
		"the bearer token; see":                "the bearer token; see",
		"bearer token: abc":                    "bearer [redacted] abc",
		"its token_type is not Bearer":         "its token_type is not Bearer",
		"header Authorization: Basic abc":      "header Authorization [redacted]",
		"proxy-authorization=x y z":            "proxy-authorization [redacted]",
		`malformed HTTP response "abc"`:        "malformed HTTP [redacted]",
		`{"access_token":"abc"}`:               `{"access_token" [redacted]`,
		"client_secret=abc":                    "client_secret= [redacted]",
		"check MIMECAST_CLIENT_SECRET":         "check MIMECAST_CLIENT_SECRET",
		"has no access_token":                  "has no access_token",
		`Get "https://u:p@h/a?b=c": EOF`:       `Get "https://h/a?…": EOF`,
		"see https://h/a?b=c and /d?e":         "see https://h/a?… and /d?…",
		"really? yes":                          "really? yes",
		"dial tcp 127.0.0.1:1: refused":        "dial tcp 127.0.0.1:1: refused",
		`Post "https://a@b@h:1/x": net/http:`:  `Post "https://h:1/x": net/http:`,
		"credentials_refused: refused (401)":   "credentials_refused: refused (401)",
		strings.Repeat("é", 600):               strings.Repeat("é", 512) + "…",
		strings.Repeat("x", 1<<16) + " Bearer": strings.Repeat("x", 1024) + "…",
	} {
		if got := telemetry.Scrub(text); got != want {
			t.Errorf("%.60q: %.120q, want %.120q", text, got, want)
		}
	}
}

func TestConsoleTimesAreUTC(t *testing.T) {
	local := time.Local
	defer func() { time.Local = local }()
	time.Local = time.FixedZone("far east", 9*3600)
	var out bytes.Buffer
	before := time.Now().UTC()
	newTelemetry(t, telemetry.Options{Output: &out, Format: "console"}).Logger().Info("m")
	text, _, _ := strings.Cut(out.String(), " ")
	at, err := time.Parse("15:04:05.000Z", text)
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Date(at.Year(), at.Month(), at.Day(), before.Hour(), before.Minute(), before.Second(), 0, time.UTC)
	if late := (at.Sub(clock) + 24*time.Hour) % (24 * time.Hour); late > time.Minute {
		t.Errorf("%s at %v", text, before)
	}
}

func TestStdLogTellsEachKindOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		std := newTelemetry(t, telemetry.Options{Output: &out}).StdLog("info")
		for i := range 6100 { // 61 s
			std.Printf("http: TLS handshake error from 127.0.0.1:%d: EOF", i)
			if i < 10 {
				std.Printf("http: Accept error: %d", i)
			}
			time.Sleep(10 * time.Millisecond)
		}
		for i := range 1000 {
			std.Printf("%d %d %d", i, i, i)
		}
		text := out.String()
		if strings.Count(text, "TLS handshake") != 2 || strings.Count(text, "Accept error") != 1 || !strings.Contains(text, `"suppressed":5999`) || strings.Count(text, "\n") > 70 {
			t.Error(text)
		}
	})
}
