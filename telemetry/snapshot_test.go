package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
		for range 2 { // the second overlaps the first
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
