package admin

import (
	"fmt"
	"slices"

	"mimecast-proxy/event"

	g "maragu.dev/gomponents"
)

func wrongCard(s *Status) g.Node {
	return card("wrong", "card", "What went wrong",
		g.Map(s.Warnings, warning),
		faultList(s),
		el("h3", text("What the proxy refused")),
		denialList(s),
	)
}

func warning(s string) g.Node {
	return el("p", class("warning"), el("b", text("Warning:")), text(" "+plain(sentence(s))))
}

// faultList leaves out what was denied, which has a list of its own.
func faultList(s *Status) g.Node {
	faults := slices.DeleteFunc(slices.Clone(s.Faults), func(f event.Fault) bool {
		return slices.ContainsFunc(s.Denials, func(d event.Denial) bool { return d.Reason == f.Code })
	})
	if len(faults) == 0 {
		return say("p", "muted", fmt.Sprintf("Nothing in the last %d minutes.", s.minutes()))
	}
	return el("ul", class("faults"), g.Map(faults, func(f event.Fault) g.Node {
		return wrong(f.Code,
			say("b", "culprit "+string(f.Component), capital(string(f.Component))),
			say("p", "when", fmt.Sprintf("%d in %d min, %d in the last one; most recently %s", f.Window, s.minutes(), f.LastMinute, ago(s.Now, f.LastAt))),
			g.If(f.LastError != "" && f.Component != event.ComponentTool, say("p", "detail", plain(f.LastError))))
	}))
}

func denialList(s *Status) g.Node {
	if len(s.Denials) == 0 {
		return say("p", "muted", "Nothing since the start.")
	}
	return el("ul", class("faults"), g.Map(s.Denials, func(d event.Denial) g.Node {
		count := fmt.Sprintf("%d since the start", d.Count)
		if d.Passed > 0 {
			count += fmt.Sprintf(", of which %d passed (PROXY_ALLOW_MODE=report)", d.Passed)
		}
		return wrong(d.Reason,
			el("code", text(string(d.Reason))),
			el("p", class("when"),
				text(count+"; most recently "+ago(s.Now, d.LastAt)),
				g.If(d.LastPath != "", g.Group{text(": "), stranger(text(plain(d.LastMethod) + " " + plain(d.LastPath)))})))
	}))
}

// wrong explains a code: whose it is, what it means, more of it, and what to do.
func wrong(code event.Code, whose g.Node, more ...g.Node) g.Node {
	k := code.Kind()
	return el("li", el("p", class("what"), whose, text(" "+k.Summary)), g.Group(more), say("p", "do", k.Remedy))
}
