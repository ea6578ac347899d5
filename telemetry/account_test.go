package telemetry_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

func TestRequestsOfNamedClientsAreCountedByTheirNames(t *testing.T) {
	r := newRig(t, telemetry.Options{Clients: true}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			tel.Client(req.Context(), req.URL.Query().Get("who"), "emea")
			if req.URL.Path == "/denied" {
				tel.Denied(req.Context(), event.RouteNotAllowed, false)
				w.WriteHeader(http.StatusForbidden)
			}
		}
	})
	for _, target := range []string{"/a?who=splunk", "/b?who=splunk", "/denied?who=splunk", "/a?who=soar", "/nobody"} {
		if _, err := r.get(target); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	if want := `"peer":"127.0.0.1","client":"splunk","account":"emea"`; strings.Count(r.log.String(), want) != 3 {
		t.Errorf("not three lines with %s: %s", want, r.log)
	}
	text := scrape(t, r.Telemetry)
	hasSeries(t, text, `client_requests_total{client="splunk",code="200"} 2`, `client_requests_total{client="splunk",code="403"} 1`,
		`client_requests_total{client="soar",code="200"} 1`, `client_denied_total{client="splunk",reason="route_not_allowed"} 1`)
	if strings.Contains(text, `client=""`) {
		t.Error("a client without a name is counted by it")
	}
	clients := r.Snapshot().Clients
	if len(clients) != 2 || clients[0].Name != "soar" || clients[1].Requests != 3 || clients[1].Rejected != 1 || clients[1].Failed != 0 || clients[1].Account != "emea" {
		t.Errorf("%+v", clients)
	}
	requests := r.Snapshot().Requests
	if i := slices.IndexFunc(requests, func(q event.Request) bool { return q.Path == "/nobody" }); requests[i].Client != "127.0.0.1" || requests[i].Account != "" {
		t.Errorf("%+v", requests[i])
	}

	r.KeepClients([]string{"splunk", "soar"})
	r.KeepClients([]string{"soar"})
	if text := scrape(t, r.Telemetry); strings.Contains(text, `client="splunk"`) || !strings.Contains(text, `client="soar"`) {
		t.Error("a client that is gone is still counted, or one that stays is not")
	}
	if clients := r.Snapshot().Clients; len(clients) != 1 {
		t.Errorf("%+v", clients)
	}
}

func TestAccountsHaveMetricsOfTheirOwn(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.AddAccount("emea")
	tel.TokenDone("emea", event.TriggerStartup, event.TokenOK, time.Second, time.Now().Add(time.Hour), nil)
	hasSeries(t, scrape(t, tel), `token_requests_total{account="emea",outcome="ok",trigger="startup"} 1`)
	tel.RemoveAccount("emea")
	if text := scrape(t, tel); strings.Contains(text, `account="emea"`) {
		t.Error("an account that was removed has metrics")
	}
}
