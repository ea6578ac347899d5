package telemetry_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

func TestSlowUploadIsNotTheProxysTime(t *testing.T) {
	reading := make(chan bool)
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			close(reading)
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			tel.Answered(r.Context(), 200, http.Header{}, time.Microsecond)
		}
	})
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\n")
	<-reading
	<-time.After(200 * time.Millisecond) // a slow client
	fmt.Fprint(conn, "x")
	io.Copy(io.Discard, conn)
	r.end()
	if got := r.Snapshot().Requests[0]; got.DurationMS < 190 || got.OwnMS > got.DurationMS-100 {
		t.Errorf("%+v", got)
	}
}

func TestHoldingBackIsNotTheProxysTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{})
		h := tel.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Millisecond)
			tel.Answered(r.Context(), 429, http.Header{}, 2*time.Millisecond)
			time.Sleep(time.Minute + 2*time.Millisecond)
			tel.Answered(r.Context(), 200, http.Header{}, 2*time.Millisecond)
		}))
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.ServeHTTP(discard{}, r)
		if got := tel.Snapshot().Requests[0]; got.OwnMS != 1 || got.UpstreamMS != 4 || !got.Retried {
			t.Errorf("%+v", got)
		}
	})
}

func TestHooksMayComeLateAndFromElsewhere(t *testing.T) {
	var late sync.WaitGroup
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, req *http.Request) {
			for range 4 {
				late.Go(func() {
					for range 100 {
						tel.Answered(req.Context(), 200, http.Header{"X-Ratelimit-Remaining": {"1"}}, time.Microsecond)
						tel.Failed(req.Context(), problem.New(event.UpstreamReset, "x"))
						tel.Route(req.Context(), "y")
						tel.Denied(req.Context(), "too_busy", false)
						tel.ReplayBytes(1)
						tel.ReplayBytes(-1)
						tel.Snapshot()
					}
				})
			}
		}
	})
	for range 5 {
		if _, err := r.get("/"); err != nil {
			t.Fatal(err)
		}
	}
	late.Wait()
	hasSeries(t, scrape(t, r.Telemetry), `requests_denied_total{reason="too_busy"} 2000`, "replay_buffer_bytes 0", "upstream_duration_seconds_count 2000")
}

func TestHooksOutsideARequestCount(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.Denied(t.Context(), "host_not_allowed", false)
	tel.Failed(t.Context(), problem.New(event.UpstreamReset, "x"))
	hasSeries(t, scrape(t, tel), `requests_denied_total{reason="host_not_allowed"} 1`)
}
