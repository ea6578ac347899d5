package admin

import (
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
		g.Map([]stage{clientStage(s), proxyStage(s), credentialsStage(s), mimecastStage(s)}, func(p stage) g.Node { return p.node(&s.Health) }))
}

// node shows the state of the health if that is about the component.
func (p stage) node(h *event.Health) g.Node {
	state := event.HealthOK
	if h.Component == p.of {
		state = h.State
	}
	return el("li", class("part "+string(state)),
		el("h2", statusLight(state), text(componentNames[p.of]+" "), textEl("span", "state", string(state))),
		textEl("p", "figure", p.Figure),
		g.Map(p.Notes, func(note string) g.Node { return textEl("p", "note", note) }),
	)
}

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

func mimecastStage(s *Status) stage {
	p := stage{of: event.ComponentMimecast, Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "responds in " + formatMS(s.Latency.UpstreamP50MS)
		p.Notes = []string{"median, 95 % within " + formatMS(s.Latency.UpstreamP95MS) + ", " + s.inWindow()}
	}
	var failed uint32
	for _, point := range s.Points {
		failed += point.Mimecast
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%d failed at Mimecast %s", failed, s.inWindow()))
	return p
}
