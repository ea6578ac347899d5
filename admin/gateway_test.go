package admin_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

func TestPageTellsAccountsAndClientsApart(t *testing.T) {
	s := healthy()
	s.Clients = []event.Client{{Name: "splunk", Account: "emea", Requests: 1200, Failed: 7, Rejected: 3, LastAt: now.Add(-4 * time.Second), P95MS: 210}}
	s.Quotas = []event.Quota{{
		Account: "emea", Path: "/siem/v1/events/cg", Function: "/siem/v1/events/cg", Limit: 300, Remaining: 12, Reset: now.Add(90 * time.Second), Limited: 2, Others: 40,
		Clients: []event.QuotaClient{{Client: "splunk", Calls: 200}, {Client: "soar", Calls: 48}}, Paced: map[event.PaceOutcome]uint64{event.PaceWaited: 31}, Waiting: 1,
	}}
	bad := admin.TokenState{Refused: true, LastError: "the token endpoint refused the credentials"}
	o := showing(s, goodToken())
	o.Accounts = func() []admin.Account {
		return []admin.Account{
			{Name: "default", ClientID: "abcdefghijkl", Region: "global", Token: goodToken()},
			{Name: "emea", ClientID: "mnopqrstuvwx", BaseURL: "https://uk-api.services.mimecast.com", InFlight: 12, Token: bad},
		}
	}
	srv := serve(t, o)
	_, page := ask(t, srv, "GET", "/")
	page = regexp.MustCompile(`<(t[dh]) [^>]*>`).ReplaceAllString(page, "<$1>")
	for _, want := range []string{
		`<th>emea</th><td>mnopqr…</td><td>https://uk-api.services.mimecast.com</td><td>credentials refused</td><td>12</td>`,
		`<th>splunk</th><td>emea</td><td>1200</td><td>7</td><td>3</td><td>210 ms</td><td>4 s ago</td>`,
		`<th>/siem/v1/events/cg</th><td>emea</td><td>12 of 300</td><td>in 1 min 30 s</td><td>splunk 200, soar 48, elsewhere 40, 2 got 429</td><td>31 waited, 1 waiting now</td>`,
		"Account emea: ", // in the verdict
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	_, status := ask(t, srv, "GET", "/api/status")
	for _, want := range []string{`"verdict":{"state":"bad","culprit":"token","text":"Account emea: `, `"name":"splunk","account":"emea","requests":1200`, `"accounts":[{"name":"default"`} {
		if !strings.Contains(status, want) {
			t.Errorf("the status lacks %q: %.300s", want, status)
		}
	}
}
