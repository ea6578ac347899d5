package telemetry_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"mimecast-proxy/telemetry"
)

// What logging and metrics cost a request, without any network.
func BenchmarkWrap(b *testing.B) {
	tel := newTelemetry(b, telemetry.Options{Output: io.Discard})
	header := http.Header{"X-Request-Id": {"6f1c1c3e"}, "X-Ratelimit-Limit": {"300"}, "X-Ratelimit-Remaining": {"299"}}
	h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tel.Answered(r.Context(), 200, header, time.Millisecond)
		w.WriteHeader(200)
		w.Write(nil)
	}))
	r, err := http.NewRequestWithContext(b.Context(), "POST", "/api/ttp/url/get-logs", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "127.0.0.1:50000"
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(discard{}, r)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	tel := newTelemetry(b, telemetry.Options{Output: io.Discard})
	h := tel.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r, err := http.NewRequestWithContext(b.Context(), "GET", "/", nil)
	if err != nil {
		b.Fatal(err)
	}
	for range 1000 {
		h.ServeHTTP(discard{}, r)
	}
	b.ReportAllocs()
	for b.Loop() {
		tel.Snapshot()
	}
}
