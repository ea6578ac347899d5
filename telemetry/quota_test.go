package telemetry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
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

func TestQuotasAreMetricsByFunction(t *testing.T) {
	const stream = "/siem/v1/events/cg"
	reset := time.Now().Add(time.Hour)
	r := newRig(t, telemetry.Options{Clients: true}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		tel.ShowQuotas(func() []event.Quota {
			return []event.Quota{
				{Account: "default", Function: stream, Path: stream, Limit: 300, Remaining: 299, Reset: reset},
				{Account: "default", Function: "other", Path: "/a", Limit: 10, Remaining: 9},
				{Account: "default", Function: "other", Path: "/b", Limit: 100, Remaining: 3},
			}
		})
		return func(_ http.ResponseWriter, req *http.Request) {
			tel.Client(req.Context(), "splunk", "default")
			tel.Paced(req.Context(), stream, 1500*time.Millisecond, event.PaceWaited)
			tel.QuotaCalled(req.Context(), stream, 200)
			tel.QuotaCalled(req.Context(), stream, 429)
		}
	})
	if _, err := r.get("/"); err != nil {
		t.Fatal(err)
	}
	r.end()
	text := scrape(t, r.Telemetry)
	hasSeries(t, text,
		`quota_limit{account="default",function="/siem/v1/events/cg"} 300`, `quota_remaining{account="default",function="/siem/v1/events/cg"} 299`,
		`quota_limit{account="default",function="other"} 100`, `quota_remaining{account="default",function="other"} 3`,
		`quota_calls_total{account="default",client="splunk",function="/siem/v1/events/cg"} 2`,
		`quota_limited_total{account="default",function="/siem/v1/events/cg"} 1`,
		`quota_waits_total{account="default",function="/siem/v1/events/cg",outcome="waited"} 1`,
		`quota_wait_seconds_total{account="default",function="/siem/v1/events/cg"} 1.5`)
	if strings.Contains(text, `quota_reset_seconds{account="default",function="other"}`) || !strings.Contains(text, `quota_reset_seconds{account="default",function="/siem/v1/events/cg"} 3`) {
		t.Error("a reset that is not known, or none where it is")
	}
	snap := r.Snapshot()
	if len(snap.Quotas) != 3 || snap.Requests[0].OwnMS > 1000 {
		t.Errorf("%+v", snap)
	}
}

func TestSealOfABatchURLIsShownNowhere(t *testing.T) {
	r := newRig(t, telemetry.Options{}, func(*telemetry.Telemetry) http.HandlerFunc {
		return func(http.ResponseWriter, *http.Request) {}
	})
	for _, target := range []string{"/batch/c2VhbGVk", "/%62atch/c2VhbGVk", "/BATCH/c2VhbGVk"} {
		if _, err := r.get(target); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	if text := r.log.String(); strings.Contains(text, "c2VhbGVk") || strings.Count(text, `"path":"/batch/…"`) != 3 {
		t.Error(text)
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
