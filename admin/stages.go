package admin

import (
	"cmp"
	"fmt"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// stage is one of the four components on a request's way.
type stage struct {
	of event.Component
	// Figure is the main number, Notes are more of them.
	Figure string
	Notes  []string
}

func stageCards(s *Status) g.Node {
	return el("ol", id("parts"), class("parts"), dataLive(), attr("aria-label", "The way of a request"),
		g.Map([]stage{clientStage(s), proxyStage(s), credentialsStage(s), mimecastStage(s)}, func(p stage) g.Node { return p.node(s) }))
}

// node shows the state of the health if that is about the component.
func (p stage) node(s *Status) g.Node {
	state, word := event.HealthOK, string(event.HealthOK)
	switch {
	case s.Health.Component == p.of:
		state, word = s.Health.State, string(s.Health.State)
	case p.of == event.ComponentCredentials && tokenTroubled(&s.Token):
		state, word = event.HealthDegraded, "affected"
	}
	return el("li", class("part "+string(state)),
		el("h2", statusLight(state), text(componentNames[p.of]+" "), textEl("span", "state", word)),
		textEl("p", "figure", p.Figure),
		g.Map(p.Notes, func(note string) g.Node { return textEl("p", "note", note) }),
	)
}

// tokenTroubled reports whether a token is not as it should be. The cause may be another
// component, which the health then names.
func tokenTroubled(t *TokenState) bool { return !t.Usable() || t.LastError != "" }

// inWindow names the window of the page's numbers.
func (s *Status) inWindow() string { return fmt.Sprintf("in the last %d min", s.minutes()) }

func clientStage(s *Status) stage {
	t := sumPoints(s.Points)
	return stage{event.ComponentClient, plural(t.Requests, "request"), []string{s.inWindow() + ", " + plural(t.Client, "client error"), fmt.Sprintf("%d since the start", s.Total)}}
}

func proxyStage(s *Status) stage {
	p := stage{of: event.ComponentProxy, Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "adds " + formatMS(s.Latency.OwnP50MS)
		p.Notes = []string{"median, 95 % within " + formatMS(s.Latency.OwnP95MS) + ", " + s.inWindow()}
	}
	note := fmt.Sprintf("%d in flight now", s.InFlight)
	if s.MaxRequests > 0 {
		note = fmt.Sprintf("%d of %d in flight now", s.InFlight, s.MaxRequests)
	}
	p.Notes = append(p.Notes, note)
	if s.Draining {
		p.Notes = append(p.Notes, "draining: it stops after these")
	}
	return p
}

func credentialsStage(s *Status) stage {
	p := stage{of: event.ComponentCredentials, Figure: "no token"}
	switch {
	case s.Token.Rejected:
		p.Figure = "token rejected"
	case s.Token.Valid:
		p.Figure = "token: " + formatDuration(s.Token.Expiry.Sub(s.Now)) + " left"
		p.Notes = []string{"renewal " + formatUntil(s.Token.NextRenewal, s.Now)}
	case s.Token.Held:
		p.Figure = "token expired"
	}
	if s.Token.LastError != "" {
		p.Notes = []string{fmt.Sprintf("%s failed, next %s", plural(s.Token.Failures, "token request"), formatUntil(s.Token.RetryAt, s.Now))}
	}
	if s.Renewing {
		p.Notes = []string{"token request in progress"}
	}
	if len(s.Accounts) > 1 {
		p.Notes = append(p.Notes, "account "+s.Account.Name)
	}
	return p
}

// mimecastStage shows the failures first while Mimecast is at fault: it may fail fast.
func mimecastStage(s *Status) stage {
	var failed uint32
	for _, point := range s.Points {
		failed += point.Mimecast
	}
	l, latency := s.Latency, ""
	if l.Count > 0 {
		latency = "responds in " + formatMS(l.UpstreamP50MS)
	}
	p := stage{of: event.ComponentMimecast, Figure: cmp.Or(latency, "no figures yet")}
	if latency != "" {
		p.Notes = []string{"median, 95 % within " + formatMS(l.UpstreamP95MS) + ", " + s.inWindow()}
	}
	if failed > 0 && s.Health.Component == p.of {
		p.Figure, p.Notes = fmt.Sprintf("%d failed", failed), []string{s.inWindow()}
		if latency != "" {
			p.Notes = append(p.Notes, latency+" (median), 95 % within "+formatMS(l.UpstreamP95MS))
		}
		return p
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%d failed at Mimecast %s", failed, s.inWindow()))
	return p
}
