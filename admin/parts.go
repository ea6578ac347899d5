package admin

import (
	"fmt"
	"strconv"

	"mimecast-proxy/event"

	g "maragu.dev/gomponents"
)

// part is one of the four that a request's way leads over.
type part struct {
	Name, State string
	// Figure is the one number to know, Notes say more.
	Figure string
	Notes  []string
}

func partsList(s *Status) g.Node {
	return el("ol", id("parts"), class("parts"), dataLive(), attr("aria-label", "The way of a request"),
		toolPart(s).node(), proxyPart(s).node(), tokenPart(s).node(), mimecastPart(s).node())
}

func (p part) node() g.Node {
	return el("li", class("part "+p.State),
		el("h2", lamp(p.State), text(p.Name+" "), say("span", "state", states[p.State])),
		say("p", "figure", p.Figure),
		g.Map(p.Notes, func(note string) g.Node { return say("p", "note", note) }),
	)
}

// stateOf returns the state of one of the four: the verdict's where that names
// it, else whether enough was its fault lately.
func stateOf(s *Status, component event.Component) string {
	switch {
	case s.Verdict.Component == component:
		return s.Verdict.State
	case percent(lately(s, component), s.LastMinute) >= notable:
		return stateWatch
	default:
		return stateOK
	}
}

func toolPart(s *Status) part {
	p := part{Name: "Tool", State: stateOf(s, event.ComponentTool), Figure: strconv.FormatUint(uint64(s.LastMinute), 10) + " requests/min"}
	if n := lately(s, event.ComponentTool); n > 0 {
		p.Notes = []string{fmt.Sprintf("%d of them its own fault", n)}
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%d since the start", s.Total))
	return p
}

func proxyPart(s *Status) part {
	p := part{Name: "Proxy", State: stateOf(s, event.ComponentProxy), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "adds " + ms(s.Latency.OwnP50MS)
	}
	note := fmt.Sprintf("%d in flight", s.InFlight)
	if s.MaxRequests > 0 {
		note += fmt.Sprintf(" of %d", s.MaxRequests)
	}
	p.Notes = []string{note, "up " + span(s.Now.Sub(s.Started))}
	return p
}

func tokenPart(s *Status) part {
	p := part{Name: "Token", State: stateOf(s, event.ComponentToken), Figure: "none held"}
	switch {
	case s.Token.Rejected:
		p.Figure = "rejected"
	case s.Token.Valid:
		p.Figure = span(s.Token.Expiry.Sub(s.Now)) + " left"
		p.Notes = []string{"renewal " + until(s.Token.NextRenewal, s.Now)}
	case s.Token.Held:
		p.Figure = "expired"
	}
	if s.Token.LastError != "" {
		p.Notes = []string{"next try " + until(s.Token.RetryAt, s.Now)}
	}
	if s.Renewing {
		p.Notes = []string{"being fetched now"}
	}
	return p
}

func mimecastPart(s *Status) part {
	p := part{Name: "Mimecast", State: stateOf(s, event.ComponentMimecast), Figure: "no figures yet"}
	if s.Latency.Count > 0 {
		p.Figure = "answers in " + ms(s.Latency.UpstreamP50MS)
	}
	p.Notes = []string{"rate limit not told"}
	if l := s.RateLimit; l != nil {
		p.Notes = []string{"rate limit: " + quota(l) + " left"}
	}
	if s.Latency.Count > 0 {
		p.Notes = append(p.Notes, "95 % within "+ms(s.Latency.UpstreamP95MS))
	}
	return p
}
