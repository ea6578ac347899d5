package mimecast_test

import (
	"net/http"
	"testing"
	"time"

	"mimecast-proxy/mimecast"
)

func TestCodeInEachEnvelope(t *testing.T) {
	for body, want := range map[string]string{
		`{"fail":[{"code":"token_expired","message":"m"}]}`:                "token_expired",
		`{"meta":{"status":401},"fail":[{"errors":[{"code":"invalid"}]}]}`: "invalid",
		`{"error":"invalid_client","error_description":"d"}`:               "invalid_client",
		`{"error":{"message":"m"}}`:                                        "",
		`{"fail":[]}`:                                                      "", `<html>`: "", ``: "", `null`: "", `[]`: "",
	} {
		if got := mimecast.Code([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "7", 7 * time.Second},
		{"Retry-After", "-7", 0},
		{"Retry-After", "999999999", time.Hour},
		{"Retry-After", now.Add(time.Minute).Format(http.TimeFormat), time.Minute},
		{"Retry-After", now.Add(-time.Minute).Format(http.TimeFormat), 0},
		{"Retry-After", now.Add(100 * time.Hour).Format(http.TimeFormat), time.Hour},
		{"Retry-After", "soon", 0},
		{"X-RateLimit-Reset", "1750", 1750 * time.Millisecond},
		{"X-Rate-Limit-Reset", "1750", 1750 * time.Millisecond},
		{"X-RateLimit-Reset", "999999999999999", time.Hour},
		{"X-Other", "7", 0},
	} {
		h := http.Header{}
		h.Set(c.name, c.value)
		if got := mimecast.RetryAfter(h, now); got != c.want {
			t.Errorf("%s: %s: %v, want %v", c.name, c.value, got, c.want)
		}
	}
}

func FuzzCode(f *testing.F) {
	f.Add([]byte(`{"fail":[{"errors":[{"code":"x"}]}],"error":"y"}`))
	f.Fuzz(func(_ *testing.T, body []byte) { mimecast.Code(body) })
}
