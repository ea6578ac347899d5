package admin

import (
	"cmp"
	"fmt"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// phases say what an in-flight request waits for.
var phases = map[event.Phase]string{
	event.PhaseProxy: "in the proxy: check, token or rate limit", event.PhaseClient: "waiting for the client's request body",
	event.PhaseMimecast: "waiting for Mimecast's response", event.PhaseResponse: "response has begun",
}

// runningCard lists in-flight requests, the oldest first.
func runningCard(s *Status) g.Node {
	title := fmt.Sprintf("In-flight requests now: %d", s.InFlight)
	if s.MaxRequests > 0 {
		title += fmt.Sprintf(" of %d", s.MaxRequests)
	}
	if len(s.Running) == 0 {
		return card("running", "card", title, textEl("p", "muted", "None."))
	}
	if int64(len(s.Running)) < s.InFlight {
		title += fmt.Sprintf(", the %d oldest", len(s.Running))
	}
	return tableCard("running", title, []column{{Name: "Age"}, {Name: "Phase"}, {Name: "Request"}, {Name: "Client"}, {Name: "Received"}, {Name: "Request ID"}}, s.Running, func(r event.Running) []g.Node {
		return []g.Node{
			text(formatMS(r.AgeMS)), text(cmp.Or(phases[r.Phase], string(r.Phase))), requestLine(r.Method, r.Path),
			clientName(r.Client, r.Account), text(formatBytes(r.BytesIn)), el("code", text(printable(r.RequestID))),
		}
	})
}

func requestLine(method, path string) g.Node {
	return isolated(el("b", text(printable(method))), text(" "+printable(path)))
}

// clientName is a client's name or address, with its account if it has one.
func clientName(client, account string) g.Node {
	name := printable(client)
	if account != "" {
		name += " (account " + printable(account) + ")"
	}
	return text(name)
}
