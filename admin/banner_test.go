package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

// failing returns the health of a proxy for which Mimecast responds with 500.
func failing() event.Health {
	k := event.MimecastError.Kind()
	return event.Health{Judgment: event.Judgment{
		State: event.HealthDown, Component: k.Component, Cause: event.Cause(k.Code), Text: k.Summary + ": 7 of 12 requests in the last minute.", Advice: k.Remedy,
		Since: now.Add(-245 * time.Second), WindowSeconds: 60, Requests: 12, Failed: 7, AffectedShare: 7. / 12,
	}}
}

func TestBannerShowsTheHealth(t *testing.T) {
	recovered := func(ago time.Duration) *event.Recovery {
		return &event.Recovery{At: now.Add(-ago), State: event.HealthDegraded, Component: event.ComponentMimecast, Cause: event.Cause(event.UpstreamTimeout), Since: now.Add(-ago - time.Minute)}
	}
	const wasSlow = "Recovered 40 s ago : Mimecast did not respond in time (Mimecast). Degraded from 2026-03-01 02:58:20 UTC to 2026-03-01 02:59:20 UTC ."
	ok := event.Judgment{State: event.HealthOK, Text: "All is well: 12 requests in the last minute.", Since: now.Add(-time.Hour), WindowSeconds: 60, Requests: 12}
	for _, c := range []struct {
		name       string
		health     event.Health
		want, lack []string
	}{
		{"ok", event.Health{Judgment: ok}, []string{"OK All is well: 12 requests in the last minute. Since 2026-03-01 02:00:00 UTC (1 h 0 min)"}, []string{"Recovered", "affected"}},
		{"down", failing(), []string{
			"Down · Mimecast Mimecast responded with a server error (5xx). Since 2026-03-01 02:55:55 UTC (4 min 5 s) · 7 of 12 requests affected in the last minute (58 %) · mimecast_error See Mimecast's service status.",
		}, []string{"Recovered"}},
		{"recovered", event.Health{Judgment: ok, Recovered: recovered(40 * time.Second)}, []string{"All is well", wasSlow}, nil},
		{"down again", event.Health{Judgment: failing().Judgment, Recovered: recovered(40 * time.Second)}, []string{"Down · Mimecast", "7 of 12 requests", wasSlow}, nil},
		{"recovered long ago", event.Health{Judgment: ok, Recovered: recovered(16 * time.Minute)}, []string{"All is well"}, []string{"Recovered"}},
		{"no request", event.Health{Judgment: event.Judgment{
			State: event.HealthDown, Component: event.ComponentCredentials, Cause: event.Cause(event.CredentialsRefused), Account: "emea", Since: now, WindowSeconds: 900,
		}}, []string{"Down · Credentials Account emea: Mimecast rejects the client ID or the secret.", "no requests in the last 15 minutes"}, nil},
	} {
		o := showing(healthy(), goodToken())
		o.Health = func() event.Health { return c.health }
		page := visible(t, serve(t, o), "/")
		page, _, _ = strings.Cut(page[strings.Index(page, "The page below is old"):], " requests in the last 15 min,")
		for _, want := range c.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q: %s", c.name, want, page)
			}
		}
		for _, lack := range c.lack {
			if strings.Contains(page, lack) {
				t.Errorf("%s: %q: %s", c.name, lack, page)
			}
		}
	}
}

func TestCardsAgreeWithTheHealth(t *testing.T) {
	rejected := goodToken()
	rejected.Rejected = true
	notRenewed := goodToken()
	notRenewed.LastError, notRenewed.Failures = "the token endpoint responded with status 503", 2
	well := event.Health{Judgment: event.Judgment{State: event.HealthOK}}
	for _, c := range []struct {
		name   string
		health event.Health
		token  admin.TokenState
		want   []string // states of client, proxy, credentials and Mimecast
	}{
		{"ok", well, goodToken(), []string{"ok", "ok", "ok", "ok"}},
		{"Mimecast fails", failing(), goodToken(), []string{"ok", "ok", "ok", "down"}},
		{"and rejects the token", failing(), rejected, []string{"ok", "ok", "affected", "down"}},
		{"and issues no other", failing(), notRenewed, []string{"ok", "ok", "affected", "down"}},
		{"no token", failing(), admin.TokenState{}, []string{"ok", "ok", "affected", "down"}},
		{"rejected, and nobody asks", well, rejected, []string{"ok", "ok", "affected", "ok"}},
	} {
		o := showing(healthy(), c.token)
		o.Health = func() event.Health { return c.health }
		_, body := ask(t, serve(t, o), "GET", "/")
		var got []string
		for _, card := range strings.Split(body, `<li class="part `)[1:] {
			_, word, _ := strings.Cut(card, `<span class="state">`)
			word, _, _ = strings.Cut(word, "<")
			got = append(got, word)
			if lamp, _, _ := strings.Cut(card, `"`); (lamp == "ok") != (word == "ok") {
				t.Errorf("%s: the card %q is %s", c.name, word, lamp)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v instead of %v", c.name, got, c.want)
		}
	}
}

func TestMimecastsCardShowsFailuresFirst(t *testing.T) {
	s := healthy()
	s.Points = []event.Point{{Requests: 12, Mimecast: 7}}
	s.Latency = event.Latency{Count: 12, UpstreamP50MS: 3, UpstreamP95MS: 8}
	o := showing(s, goodToken())
	for _, c := range []struct {
		health event.Health
		want   string
	}{
		{event.Health{Judgment: event.Judgment{State: event.HealthOK}}, "Mimecast ok responds in 3.0 ms median, 95 % within 8.0 ms, in the last 15 min 7 failed at Mimecast in the last 15 min"},
		{failing(), "Mimecast down 7 failed in the last 15 min responds in 3.0 ms (median), 95 % within 8.0 ms"},
	} {
		o.Health = func() event.Health { return c.health }
		if page := visible(t, serve(t, o), "/"); !strings.Contains(page, c.want) {
			t.Errorf("no %q: %s", c.want, page)
		}
	}
}

func TestHistoryShowsHowLongEachStateLasted(t *testing.T) {
	h := failing()
	h.History = []event.HealthChange{
		{At: now.Add(-time.Minute), State: event.HealthDown, Component: event.ComponentMimecast, Cause: event.Cause(event.MimecastError), Account: "emea"},
		{At: now.Add(-5 * time.Minute), State: event.HealthOK},
	}
	o := showing(healthy(), goodToken())
	o.Health = func() event.Health { return h }
	page := visible(t, serve(t, o), "/")
	for _, want := range []string{"2026-03-01 02:59:00 down Mimecast Mimecast responded with a server error (5xx) mimecast_error emea 1 min 0 s so far", "2026-03-01 02:55:00 ok 4 min 0 s"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q: %s", want, page)
		}
	}
}

func TestTicketHasWhatHelpersAskFor(t *testing.T) {
	s := healthy()
	s.Requests[0].Fault, s.Requests[0].Error, s.Requests[0].Status, s.Requests[0].Client = event.MimecastError, "Mimecast said no", 500, "splunk"
	s.Errors = s.Requests[:1]
	o := showing(s, goodToken())
	o.Health = failing
	_, body := ask(t, serve(t, o), "GET", "/")
	_, text, _ := strings.Cut(body, `<textarea id="ticket-text"`)
	_, text, _ = strings.Cut(text, ">")
	text, _, _ = strings.Cut(text, "</textarea>")
	for _, want := range []string{
		"Mimecast Proxy v1.2.3 at 2026-03-01 03:00:00 UTC, up 2 h 0 min\n", "Health: down, Mimecast, since 2026-03-01 02:55:55 UTC (4 min 5 s)\n",
		"Share: 7 of 12 requests affected in the last minute (58 %)\n", "Account default: client ID abcdef…", "Last 15 minutes: 100 requests",
		"- 2026-03-01 03:00:00 UTC GET /siem/v1/events/0: 500 mimecast_error, client splunk\n  proxy 0000000000000000, Mimecast 24a37735-b64d-4ba5-bc7b-000000000000\n  Mimecast said no\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestLongHistoryIsFolded(t *testing.T) {
	h := failing()
	for i := range 20 {
		h.History = append(h.History, event.HealthChange{At: now.Add(-time.Duration(i+1) * time.Minute), State: event.HealthStates[i%2]})
	}
	o := showing(healthy(), goodToken())
	o.Health = func() event.Health { return h }
	page := visible(t, serve(t, o), "/")
	before, after, _ := strings.Cut(page, "Earlier states")
	if n := strings.Count(before, " 1 min 0 s") + strings.Count(after, " 1 min 0 s"); !strings.Contains(before, "2026-03-01 02:52:00") || !strings.Contains(after, "2026-03-01 02:51:00 ok 1 min 0 s") || n < 20 {
		t.Errorf("%d changes: %s", n, after)
	}
}
