package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

func TestSnapshotTellsSinceWhenRequestsAreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{})
		h := tel.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(time.Minute) }))
		if since := tel.Snapshot().BusySince; !since.IsZero() {
			t.Errorf("busy since %v before the first request", since)
		}
		began := time.Now()
		var wg sync.WaitGroup
		for range 2 { // the second request overlaps the first
			wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)) })
			time.Sleep(40 * time.Second)
		}
		if since := tel.Snapshot().BusySince; !since.Equal(began) {
			t.Errorf("busy since %v, want %v", since, began)
		}
		wg.Wait()
		if since := tel.Snapshot().BusySince; !since.IsZero() {
			t.Errorf("busy since %v after the last request", since)
		}
	})
}

func TestSnapshotShowsTheWindowAndForgetsBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{})
		h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Millisecond)
			tel.Answered(r.Context(), 200, http.Header{}, 2*time.Millisecond)
			if r.URL.Path == "/bad" {
				w.WriteHeader(500)
			}
		}))
		ask := func(path string) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(discard{}, r)
		}
		ask("/ok")
		ask("/bad")
		time.Sleep(5 * time.Minute)
		ask("/ok")
		snap := tel.Snapshot()
		first, last := find(snap.Points)
		if snap.Total != 3 || first.Requests != 2 || first.Mimecast != 1 || first.UpstreamMS != 2 || first.OwnMS != 1 || last.Requests != 1 || snap.LastMinute != 1 {
			t.Errorf("%+v, first %+v, last %+v", snap, first, last)
		}
		if len(snap.Points) != 180 || snap.Points[179].T-snap.Points[0].T != 179*5 || snap.Points[179].Requests != 1 {
			t.Errorf("%d points", len(snap.Points))
		}
		if f := snap.Faults; len(f) != 1 || f[0].Code != "mimecast_error" || f[0].Window != 1 || f[0].LastMinute != 0 {
			t.Errorf("%+v", f)
		}
		if l := snap.Latency; l != (event.Latency{Count: 3, OwnP50MS: 1, OwnP95MS: 1, UpstreamP50MS: 2, UpstreamP95MS: 2}) {
			t.Errorf("%+v", l)
		}
		time.Sleep(12 * time.Minute)
		if snap := tel.Snapshot(); len(snap.Faults) != 0 || len(snap.Requests) != 3 || sum(snap.Points) != 1 {
			t.Errorf("%+v", snap)
		}
		time.Sleep(24 * time.Hour)
		if snap := tel.Snapshot(); sum(snap.Points) != 0 {
			t.Errorf("%+v", snap.Points)
		}
	})
}

// find returns the first and the last point with requests.
func find(points []event.Point) (first, last event.Point) {
	for _, p := range points {
		if p.Requests > 0 && first.Requests == 0 {
			first = p
		}
		if p.Requests > 0 {
			last = p
		}
	}
	return first, last
}

func sum(points []event.Point) (n uint32) {
	for _, p := range points {
		n += p.Requests
	}
	return n
}
