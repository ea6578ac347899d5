package telemetry_test

import (
	"math"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

func TestClientsAndRoutesAreCountedInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{Routes: []string{"GET /a/", "GET /unused"}, Clients: true})
		var took time.Duration
		h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tel.Client(r.Context(), "splunk", "emea")
			if r.URL.Path == "/rejected" {
				tel.Denied(r.Context(), event.RouteNotAllowed, false)
				return
			}
			tel.Route(r.Context(), "GET "+r.URL.Path)
			time.Sleep(took)
			if r.URL.Path == "/" {
				tel.Failed(r.Context(), problem.New(event.UpstreamReset, "cut"))
			}
		}))
		ask := func(path string) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(discard{}, r)
		}
		for i := range 100 {
			took = time.Duration(i+1) * time.Millisecond
			ask("/a/")
		}
		last := time.Now()
		ask("/")
		ask("/rejected")
		snap := tel.Snapshot()
		if c := snap.Clients; len(c) != 1 || c[0].Account != "emea" || c[0].Requests != 102 || c[0].Failed != 1 || c[0].Rejected != 1 {
			t.Errorf("%+v", c)
		}
		r := snap.Routes
		if len(r) != 3 || r[0].Pattern != "GET /a/" || r[0].Requests != 100 || r[1].Requests != 0 || !r[1].LastAt.IsZero() || r[2].Pattern != "other" || r[2].Requests != 2 {
			t.Fatalf("%+v", r)
		}
		if !r[0].LastAt.Equal(last) || math.Abs(r[0].P95MS-95) > 10 {
			t.Errorf("last at %v, 95 %% within %v ms", r[0].LastAt, r[0].P95MS)
		}
		if d := snap.Denials; len(d) != 1 || d[0].Count != 1 || d[0].Window != 1 || d[0].WindowPassed != 0 {
			t.Errorf("%+v", d)
		}
		time.Sleep(15 * time.Minute)
		snap = tel.Snapshot()
		if r := snap.Routes[0]; r.Requests != 0 || r.P95MS != 0 || !r.LastAt.Equal(last) {
			t.Errorf("after the window: %+v", r)
		}
		if d := snap.Denials[0]; d.Count != 1 || d.Window != 0 {
			t.Errorf("after the window: %+v", d)
		}
	})
}

func TestErrorsOutlastTheRequestsAmongWhichTheyWere(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			tel.Failed(r.Context(), problem.New(event.UpstreamReset, "cut"))
			w.WriteHeader(502)
		case "/rejected":
			tel.Denied(r.Context(), event.RouteNotAllowed, false)
			w.WriteHeader(403)
		}
	}))
	ask := func(path string, times int) {
		for range times {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(discard{}, r)
		}
	}
	ask("/bad", 60)
	ask("/rejected", 60)
	ask("/good", 300)
	snap := tel.Snapshot()
	if e := snap.Errors; len(e) != 100 || e[0].Path != "/rejected" || e[0].Seq != 119 || e[99].Path != "/bad" || e[99].Seq != 10 {
		t.Errorf("%d errors: %+v", len(e), e)
	}
}
