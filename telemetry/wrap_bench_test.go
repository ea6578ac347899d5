package telemetry_test

import (
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"mimecast-proxy/telemetry"
)

// BenchmarkWrap measures the cost of logging and metrics per request, without a
// network.
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

// BenchmarkLogLine measures what a log line costs its request, into a pipe that is
// read. The request writes it directly, or the LogWriter's goroutine does.
func BenchmarkLogLine(b *testing.B) {
	redactor := newRedactor()
	for name, output := range map[string]func(io.Writer) io.Writer{
		"direct": func(w io.Writer) io.Writer { return w },
		"queued": func(w io.Writer) io.Writer { return telemetry.NewLogWriter(w, redactor) },
	} {
		b.Run(name, func(b *testing.B) {
			read, write, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			defer write.Close()
			go io.Copy(io.Discard, read)
			out := output(write)
			h := newTelemetry(b, telemetry.Options{Output: out, Redactor: redactor}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r, err := http.NewRequestWithContext(b.Context(), "GET", "/siem/v1/events/cg", nil)
			if err != nil {
				b.Fatal(err)
			}
			r.RemoteAddr = "127.0.0.1:50000"
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(discard{}, r)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
			if w, ok := out.(*telemetry.LogWriter); ok {
				w.Close()
				b.ReportMetric(float64(w.Dropped()), "dropped")
			}
		})
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
