package admin

import (
	"fmt"
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// componentNames are what the page calls the components.
var componentNames = map[event.Component]string{
	event.ComponentClient: "Client", event.ComponentProxy: "Proxy", event.ComponentCredentials: "Credentials", event.ComponentMimecast: "Mimecast",
}

// healthBanner shows the state, its cause, since when, whom it affects and what to do.
func healthBanner(s *Status) g.Node {
	h := &s.Health
	return el("section", id("health"), class("health "+string(h.State)), dataLive(), attr("data-state", stateKey(&h.Judgment)), attr("aria-label", "Health"),
		statusLight(h.State),
		el("div", // page.js has all of it read out as one text
			el("p", class("state"), el("b", text(stateName(h.State))), g.If(h.Component != "", text(" · "+componentNames[h.Component])), text(" ")),
			el("p", class("answer"), text(headline(&h.Judgment)+" ")),
			healthFacts(s),
			g.If(h.Advice != "", el("p", class("advice"), text(printable(h.Advice)+" "))),
			recoveredLine(s),
		),
	)
}

// stateName is a state as a title.
func stateName(state event.HealthState) string {
	if state == event.HealthOK {
		return "OK"
	}
	return capitalize(string(state))
}

// stateKey changes when the state has to be announced.
func stateKey(j *event.Judgment) string {
	return string(j.State) + " " + string(j.Component) + " " + string(j.Cause) + " " + j.Account
}

// headline is the cause in one sentence. Its numbers are in [affected].
func headline(j *event.Judgment) string {
	if j.Cause == "" {
		return j.Text
	}
	return scope(j) + j.Cause.Condition().Summary + "."
}

// scope names the account or the client that a judgment is about.
func scope(j *event.Judgment) string {
	switch {
	case j.Account != "":
		return "Account " + j.Account + ": "
	case j.Client != "":
		return "Client " + j.Client + ": "
	default:
		return ""
	}
}

func healthFacts(s *Status) g.Node {
	h := &s.Health
	if h.Since.IsZero() {
		return nil
	}
	facts := g.Group{class("numbers"), text("Since "), stamp(h.Since), text(" (" + formatDuration(s.Now.Sub(h.Since)) + ")")}
	if h.Cause != "" {
		facts = append(facts, text(" · "+affected(&h.Judgment)+" · "), codeLink(string(h.Cause)))
	}
	return el("p", append(facts, text(" "))...)
}

// affected is how many requests met the cause, with the window.
func affected(j *event.Judgment) string {
	if j.Requests == 0 {
		return "no requests in the last " + formatWindow(j.WindowSeconds)
	}
	return fmt.Sprintf("%d of %s affected in the last %s (%.0f %%)", j.Failed, plural(j.Requests, "request"), formatWindow(j.WindowSeconds), 100*float64(j.Failed)/float64(j.Requests))
}

// recoveryShown is for how long a recovery is shown.
const recoveryShown = 15 * time.Minute

func recentRecovery(s *Status) *event.Recovery {
	r := s.Health.Recovered
	if r != nil && r.Cause != event.CauseTokenPending && s.Now.Sub(r.At) < recoveryShown { // a start is no fault
		return r
	}
	return nil
}

// recoveredLine is about the last fault that ended. It stands below a present one.
func recoveredLine(s *Status) g.Node {
	r := recentRecovery(s)
	if r == nil {
		return nil
	}
	return el("p", class("recovered"),
		el("b", text("Recovered "+formatAgo(s.Now, r.At))), text(": "+r.Cause.Condition().Summary+" ("+componentNames[r.Component]+"). "+capitalize(string(r.State))+" from "),
		stamp(r.Since), text(" to "), stamp(r.At), text("."))
}

// historyShown is how many changes are not folded.
const historyShown = 8

// historyCard lists how the state changed.
func historyCard(s *Status) g.Node {
	h := s.Health.History
	if len(h) == 0 {
		return card("history", "card", "History of states", textEl("p", "muted", "No change since the start."))
	}
	ends := s.Now
	cells := func(c event.HealthChange) []g.Node {
		lasted := formatDuration(ends.Sub(c.At))
		if ends.Equal(s.Now) {
			lasted += " so far"
		}
		ends = c.At
		return []g.Node{clock(c.At), stateTag(c.State), text(componentNames[c.Component]), causeNode(c.Cause), text(c.Account), text(lasted)}
	}
	columns := []column{zoned("Since"), {Name: "State"}, {Name: "Component"}, {Name: "Cause"}, {Name: "Account"}, {Name: "Lasted"}}
	latest, earlier := h[:min(len(h), historyShown)], h[min(len(h), historyShown):]
	all := g.Group{table("history-title", columns, latest, cells)}
	if len(earlier) > 0 {
		all = append(all, el("details", id("earlier"), el("summary", id("earlier-summary"), text("Earlier states")), table("earlier-summary", columns, earlier, cells)))
	}
	return card("history", "card", "History of states", all)
}

// stateTag is a state by shape, color and word.
func stateTag(state event.HealthState) g.Node {
	return el("span", class("state "+string(state)), statusLight(state), text(" "+string(state)))
}

func causeNode(c event.Cause) g.Node {
	if c == "" {
		return text("")
	}
	return g.Group{text(c.Condition().Summary + " "), codeLink(string(c))}
}

// judged returns the state of an account or a client.
func judged(all []event.NamedJudgment, name string, now time.Time) g.Node {
	for _, one := range all {
		if one.Name != name {
			continue
		}
		cell := g.Group{stateTag(one.State)}
		if one.Cause != "" {
			cell = append(cell, text(", since "), timeEl(one.Since, formatAgo(now, one.Since)), text(": "), causeNode(one.Cause))
		}
		return cell
	}
	return text("not known")
}
