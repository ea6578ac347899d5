package admin_test

import (
	"strings"
	"testing"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

func TestPageTellsAccountsAndClientsApart(t *testing.T) {
	s := healthy()
	s.Clients = []event.Client{{Name: "splunk", Account: "emea", Usage: event.Usage{Requests: 1200, Failed: 7, Rejected: 3, LastAt: now.Add(-4 * time.Second), P95MS: 210}}}
	s.Routes = []event.Route{{Pattern: "GET /siem/", Usage: event.Usage{Requests: 40, Failed: 2, P95MS: 95, LastAt: now.Add(-time.Minute)}}, {Pattern: "POST /api/"}}
	s.Quotas = []event.Quota{{
		Account: "emea", Path: "/siem/v1/events/cg", Function: "/siem/v1/events/cg", Limit: 300, Remaining: 12, Reset: now.Add(90 * time.Second), Limited: 2, Others: 40,
		Clients: []event.QuotaClient{{Client: "splunk", Calls: 200}, {Client: "soar", Calls: 48}}, Paced: map[event.PaceOutcome]uint64{event.PaceWaited: 31}, Waiting: 1,
	}, {Account: "emea", Path: "/fresh", Limit: 300, Remaining: 12, Others: 3}}
	bad := admin.TokenState{Refused: true, LastError: "the token endpoint refused the credentials"}
	o := showing(s, goodToken())
	o.Accounts = func() []admin.Account {
		return []admin.Account{
			{Name: "default", ClientID: "abcdefghijkl", Region: "global", Token: goodToken()},
			{Name: "emea", ClientID: "mnopqrstuvwx", BaseURL: "https://uk-api.services.mimecast.com", InFlight: 12, Token: bad},
		}
	}
	since := now.Add(-4 * time.Minute)
	down := event.Judgment{State: event.HealthDown, Component: event.ComponentCredentials, Cause: event.Cause(event.CredentialsRefused), Since: since}
	o.Health = func() event.Health {
		overall := down
		overall.State, overall.Account = event.HealthDegraded, "emea"
		return event.Health{
			Judgment: overall,
			Accounts: []event.NamedJudgment{{Name: "default", Judgment: event.Judgment{State: event.HealthOK, Since: since}}, {Name: "emea", Judgment: down}},
			Clients:  []event.NamedJudgment{{Name: "splunk", Judgment: event.Judgment{State: event.HealthOK, Since: since}}},
		}
	}
	srv := serve(t, o)
	page := visible(t, srv, "/")
	for _, want := range []string{
		"emea down , since 4 min 0 s ago : Mimecast rejects the client ID or the secret credentials_refused mnopqr… https://uk-api.services.mimecast.com none: credentials rejected 12",
		"default ok abcdef… global expires in 29 min 0 s 0",
		"Clients in the last 15 minutes", "splunk ok emea 1200 7 3 210 ms 4 s ago",
		"Routes in the last 15 minutes", "GET /siem/ 40 2 0 95 ms 1 min 0 s ago", "POST /api/ 0 0 0 none since the start",
		"/siem/v1/events/cg emea 12 of 300 nearly used up in 1 min 30 s splunk 200, soar 48, elsewhere 40, 2 got 429 31 waited, 1 waiting now",
		"/fresh emea 12 of 300 elsewhere 3", // the window has ended
		"Account emea: Mimecast rejects the client ID or the secret.",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	_, status := ask(t, srv, "GET", "/api/status")
	for _, want := range []string{`"health":{"state":"degraded","component":"credentials","cause":"credentials_refused","account":"emea",`, `"name":"splunk","account":"emea","requests":1200`, `"accounts":[{"name":"default"`} {
		if !strings.Contains(status, want) {
			t.Errorf("the status lacks %q: %.300s", want, status)
		}
	}
	if strings.Contains(status, `"verdict"`) || strings.Contains(status, `"culprit"`) {
		t.Error("the status has keys of old")
	}
}
