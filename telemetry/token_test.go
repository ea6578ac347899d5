package telemetry_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

func TestMetricsShowTheTokens(t *testing.T) {
	tokens := []event.Token{{Account: "default"}, {Account: "emea", Expiry: time.Unix(2e9, 0), Usable: true}}
	tel := newTelemetry(t, telemetry.Options{Tokens: func() []event.Token { return tokens }})
	hasSeries(t, scrape(t, tel),
		`token_valid{account="default"} 0`, `token_expiry_timestamp_seconds{account="default"} 0`,
		`token_valid{account="emea"} 1`, `token_expiry_timestamp_seconds{account="emea"} 2e+09`)
	tokens[1].Usable = false
	hasSeries(t, scrape(t, tel), `token_valid{account="emea"} 0`)
}

func TestTokenEventIsOneLine(t *testing.T) {
	log := &buffer{}
	tel := newTelemetry(t, telemetry.Options{Output: log})
	tel.TokenStart("default")
	tel.TokenDone("default", "startup", "refused", 1500*time.Microsecond, time.Time{}, errors.New("check the secret"))
	tel.TokenDone("default", "startup", "unavailable", 0, time.Time{}, errors.New("down"))
	tel.TokenDone("default", "startup", "ok", 0, time.Unix(1e9, 0), nil)
	lines := slices.Collect(strings.Lines(log.String()))
	for i, want := range []string{
		`"level":"error","time":"*","msg":"token request failed","account":"default","trigger":"startup","outcome":"refused","duration_ms":1.5,"error":"check the secret"`,
		`"level":"warn","time":"*","msg":"token request failed","account":"default","trigger":"startup","outcome":"unavailable","duration_ms":0,"error":"down"`,
		`"level":"info","time":"*","msg":"token renewed","account":"default","trigger":"startup","outcome":"ok","duration_ms":0,"expiry":"2001-09-09T01:46:40.000Z"`,
	} {
		before, after, _ := strings.Cut(want, "*")
		if i >= len(lines) || !strings.Contains(lines[i], before) || !strings.Contains(lines[i], after) {
			t.Errorf("%d: %q", i, lines)
		}
	}
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
}
