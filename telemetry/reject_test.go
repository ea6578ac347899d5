package telemetry_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

// accessLines returns the request lines in a log, each with the number of further
// requests that it counts.
func accessLines(t *testing.T, log string) (lines []struct {
	Path, Error string
	Suppressed  int
}) {
	t.Helper()
	for text := range strings.Lines(log) {
		var line struct {
			Path, Error string
			Suppressed  int
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestRejectedRequestsAreOneLineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &buffer{}
		tel := newTelemetry(t, telemetry.Options{Output: log})
		h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/fine" {
				return
			}
			tel.Denied(r.Context(), event.Code(strings.Trim(r.URL.Path, "/")), false)
			w.WriteHeader(403)
		}))
		ask := func(path string) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(discard{}, r)
		}
		for range 1000 { // 10 s
			ask("/api_key_required")
			ask("/host_not_allowed")
			time.Sleep(10 * time.Millisecond)
		}
		ask("/fine")
		time.Sleep(5 * time.Second)
		ask("/api_key_required")
		synctest.Wait()
		sum, lines := map[string]int{}, map[string]int{}
		all := accessLines(t, log.String())
		for _, l := range all {
			sum[l.Path] += 1 + l.Suppressed
			lines[l.Path]++
		}
		if sum["/api_key_required"] != 1001 || sum["/host_not_allowed"] != 1000 || sum["/fine"] != 1 {
			t.Errorf("the lines stand for %v", sum)
		}
		if lines["/api_key_required"] != 12 || lines["/host_not_allowed"] != 11 {
			t.Errorf("there are %v lines", lines)
		}
		if last := all[len(all)-1]; last.Path != "/api_key_required" || last.Suppressed != 0 {
			t.Errorf("the last line, after a pause, is %+v", last)
		}
		if size := len(log.String()); size > 15_000 {
			t.Errorf("%d bytes for 2,000 requests", size)
		}
		hasSeries(t, gathered(t, tel), `requests_denied_total{reason="api_key_required"} 1001`, `requests_denied_total{reason="host_not_allowed"} 1000`)
	})
}

// gathered returns the metrics as text, without a network.
func gathered(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &kept{header: http.Header{}}
	tel.Metrics().ServeHTTP(w, r)
	return w.String()
}

// kept is a ResponseWriter that keeps the body.
type kept struct {
	buffer
	header http.Header
}

func (k *kept) Header() http.Header { return k.header }
func (k *kept) WriteHeader(int)     {}

func TestEndTellsOfRejectedRequests(t *testing.T) {
	log := &buffer{}
	w := telemetry.NewLogWriter(log, nil)
	tel := newTelemetry(t, telemetry.Options{Output: w})
	h := tel.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { tel.Denied(r.Context(), "too_busy", false) }))
	for i := range 10 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("/%d", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		h.ServeHTTP(discard{}, r)
	}
	w.Close()
	if lines := accessLines(t, log.String()); len(lines) != 2 || lines[1].Path != "/9" || lines[1].Suppressed != 8 {
		t.Errorf("%+v", lines)
	}
}

func TestRejectedRequestsPushNoOthersOut(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/fine" {
			tel.Denied(r.Context(), "api_key_required", false)
			w.WriteHeader(401)
		}
	}))
	ask := func(path string) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.ServeHTTP(discard{}, r)
	}
	for range 150 {
		ask("/fine")
	}
	for range 1000 {
		ask("/rejected")
	}
	for range 20 {
		ask("/fine")
	}
	snap := tel.Snapshot()
	fine, last := 0, uint64(1170)
	for _, r := range snap.Requests {
		if r.Seq >= last {
			t.Errorf("%d comes after %d", r.Seq, last)
		}
		if last = r.Seq; r.Path == "/fine" {
			fine++
		}
	}
	if fine != 170 || len(snap.Requests) != 220 || snap.Total != 1170 {
		t.Errorf("%d of %d remembered were let through, of %d", fine, len(snap.Requests), snap.Total)
	}
	if f := snap.Faults; len(f) != 1 || !f[0].Rejected || f[0].Window != 1000 {
		t.Errorf("%+v", f)
	}
}
