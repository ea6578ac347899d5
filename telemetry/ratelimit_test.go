package telemetry_test

import (
	"net/http"
	"strings"
	"testing"

	"mimecast-proxy/telemetry"
)

func TestRateLimitIsReadInAllSpellings(t *testing.T) {
	for _, prefix := range []string{"X-RateLimit-", "X-Rate-Limit-", "X-Mimecast-RateLimit-"} {
		tel := newTelemetry(t, telemetry.Options{})
		if text := scrape(t, tel); strings.Contains(text, "mimecast_proxy_rate_limit_limit") {
			t.Error("a limit before Mimecast named one")
		}
		h := http.Header{}
		h.Set(prefix+"Limit", "300")
		h.Set(prefix+"Remaining", "0")
		h.Set(prefix+"Reset", "1750")
		tel.Answered(t.Context(), 200, h, 0)
		hasSeries(t, scrape(t, tel), `rate_limit_limit{account="default"} 300`, `rate_limit_remaining{account="default"} 0`, `rate_limit_reset_seconds{account="default"} 1.75`)
		if l := tel.Snapshot().RateLimit; l == nil || *l.ResetMS != 1750 {
			t.Errorf("%s: %+v", prefix, l)
		}
	}
}

func TestHostileRateLimitsAreIgnored(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	for _, values := range [][]string{{"-1"}, {"1e9"}, {"NaN"}, {"+Inf"}, {"9999999999999999"}, {"1", "2"}, {""}, {" 1"}, {"0x1"}} {
		tel.Answered(t.Context(), 200, http.Header{"X-Ratelimit-Limit": values, "X-Ratelimit-Remaining": values}, 0)
	}
	if text := scrape(t, tel); strings.Contains(text, "mimecast_proxy_rate_limit_limit") || tel.Snapshot().RateLimit != nil {
		t.Error(ours(text))
	}
}
