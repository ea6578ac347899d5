package admin

import (
	"fmt"
	"strconv"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// stage is one of the four components on a request's way.
type stage struct {
	Name, State string
	// Figure is the main number, Notes are more of them.
	Figure string
	Notes  []string
}

func stageCards(s *Status) g.Node {
	return el("ol", id("parts"), class("parts"), dataLive(), attr("aria-label", "The way of a request"),
		toolStage(s).node(), proxyStage(s).node(), tokenStage(s).node(), mimecastStage(s).node())
}

func (p stage) node() g.Node {
	return el("li", class("part "+p.State),
		el("h2", statusLight(p.State), text(p.Name+" "), textEl("span", "state", states[p.State])),
		textEl("p", "figure", p.Figure),
		g.Map(p.Notes, func(note string) g.Node { return textEl("p", "note", note) }),
	)
}

// componentState returns the state of a component: that of the diagnosis if it names
// the component, else by the share of requests that failed there.
func componentState(s *Status, component event.Component) string {
	switch {
	case s.Diagnosis.Component == component:
		return s.Diagnosis.State
	case percent(failedLastMinute(s, component), s.LastMinute) >= watchPercent:
		return stateWatch
	default:
		return stateOK
	}
}

func toolStage(s *Status) stage {
	p := stage{Name: "Tool", State: componentState(s, event.ComponentClient), Figure: strconv.FormatUint(uint64(s.LastMinute), 10) + " requests/min"}
	if n := failedLastMinute(s, event.ComponentClient); n > 0 {
		p.Notes = []string{fmt.Sprintf("%d of them its own fault", n)}
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%d since the start", s.Total))
	return p
}

func proxyStage(s *Status) stage {
	p := stage{Name: "Proxy", State: componentState(s, event.ComponentProxy), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "adds " + formatMS(s.Latency.OwnP50MS)
	}
	note := fmt.Sprintf("%d in flight", s.InFlight)
	if s.MaxRequests > 0 {
		note += fmt.Sprintf(" of %d", s.MaxRequests)
	}
	p.Notes = []string{note, "up " + formatDuration(s.Now.Sub(s.Started))}
	return p
}

func tokenStage(s *Status) stage {
	p := stage{Name: "Token", State: componentState(s, event.ComponentCredentials), Figure: "none held"}
	switch {
	case s.Token.Rejected:
		p.Figure = "rejected"
	case s.Token.Valid:
		p.Figure = formatDuration(s.Token.Expiry.Sub(s.Now)) + " left"
		p.Notes = []string{"renewal " + formatUntil(s.Token.NextRenewal, s.Now)}
	case s.Token.Held:
		p.Figure = "expired"
	}
	if s.Token.LastError != "" {
		p.Notes = []string{"next try " + formatUntil(s.Token.RetryAt, s.Now)}
	}
	if s.Renewing {
		p.Notes = []string{"being fetched now"}
	}
	return p
}

func mimecastStage(s *Status) stage {
	p := stage{Name: "Mimecast", State: componentState(s, event.ComponentMimecast), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "responds in " + formatMS(s.Latency.UpstreamP50MS)
	}
	p.Notes = []string{"no rate limit yet"}
	if l := s.RateLimit; l != nil {
		p.Notes = []string{"rate limit: " + formatQuota(l) + " left"}
	}
	if s.Latency.Count > 0 {
		p.Notes = append(p.Notes, "95 % within "+formatMS(s.Latency.UpstreamP95MS))
	}
	return p
}
