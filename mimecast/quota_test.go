package mimecast_test

import (
	"net/http"
	"strings"
	"testing"

	"mimecast-proxy/mimecast"
)

func TestQuotaIsReadInAllSpellings(t *testing.T) {
	for _, prefix := range []string{"X-RateLimit-", "X-Rate-Limit-", "X-Mimecast-RateLimit-"} {
		h := http.Header{}
		h.Set(prefix+"Limit", "300")
		h.Set(prefix+"Remaining", "0")
		h.Set(prefix+"Reset", "1750")
		if q, ok := mimecast.ReadQuota(h); !ok || q != (mimecast.Quota{Limit: 300, Remaining: 0, ResetMS: 1750}) {
			t.Errorf("%s: %+v %v", prefix, q, ok)
		}
	}
}

func TestHostileQuotasAreNotRead(t *testing.T) {
	for _, values := range [][]string{{"-1"}, {"1e9"}, {"NaN"}, {"+Inf"}, {"9999999999999999"}, {"1", "2"}, {""}, {" 1"}, {"0x1"}, {"+1"}} {
		if q, ok := mimecast.ReadQuota(http.Header{"X-Ratelimit-Limit": values, "X-Ratelimit-Reset": values}); ok {
			t.Errorf("%q: %+v", values, q)
		}
	}
}

func FuzzReadQuota(f *testing.F) {
	f.Add("300", "299", "1750")
	f.Add("-1", "NaN", "999999999999999")
	f.Fuzz(func(t *testing.T, limit, remaining, reset string) {
		h := http.Header{"X-Ratelimit-Limit": {limit}, "X-Ratelimit-Remaining": {remaining}, "X-Ratelimit-Reset": {reset}}
		q, _ := mimecast.ReadQuota(h)
		for _, n := range []int64{q.Limit, q.Remaining, q.ResetMS} {
			if n < mimecast.NotStated || n >= 1e15 {
				t.Errorf("%+v", q)
			}
		}
	})
}

func TestFunctionsAreAClosedSet(t *testing.T) {
	for path, want := range map[string]string{
		"/siem/v1/events/cg":          "/siem/v1/events/cg",
		"/siem/v1/batch/events/ci":    "/siem/v1/batch/events/ci",
		"/api/ttp/url/get-logs":       "/api/ttp/url/get-logs",
		"/threats/v1/events":          "/threats/v1/events",
		"/threats/v1/events?pageSize": mimecast.OtherFunction,
		"/api/login/login":            mimecast.OtherFunction,
		"/siem/":                      mimecast.OtherFunction,
		"/made/up":                    mimecast.OtherFunction,
		"":                            mimecast.OtherFunction,
	} {
		if got := mimecast.FunctionOf(path); got != want {
			t.Errorf("%s is %s", path, got)
		}
	}
	for _, product := range mimecast.Products {
		if path, _, _ := strings.Cut(product.Path, "?"); mimecast.FunctionOf(path) != path {
			t.Errorf("%s has no label", path)
		}
	}
	if n := mimecast.Functions(); n > 150 {
		t.Errorf("%d labels are too many for a metric", n)
	}
}
