package telemetry_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"mimecast-proxy/telemetry"
)

func TestDenialsAreRemembered(t *testing.T) {
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", r.URL.Path == "/passed")
		}
	})
	for _, path := range []string{"/passed", "/denied", "/last?secret"} {
		if _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	d := r.Snapshot().Denials
	if len(d) != 1 || d[0].Count != 3 || d[0].Passed != 1 || d[0].LastPath != "/last" || d[0].LastMethod != "GET" {
		t.Errorf("%+v", d)
	}
}

func TestTokenEventsAreRememberedNewestFirst(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.TokenDone("default", "startup", "refused", 0, time.Time{}, errors.New("why"))
	for range 30 {
		tel.TokenStart("default")
		if !tel.Snapshot().Renewing {
			t.Error("not renewing")
		}
		tel.TokenDone("default", "expiry", "ok", 0, time.Now().Add(time.Hour), nil)
	}
	snap := tel.Snapshot()
	if len(snap.TokenEvents) != 20 || snap.TokenEvents[0].Outcome != "ok" || snap.TokenFailure.Error != "why" || snap.Renewing {
		t.Errorf("%+v", snap)
	}
}
