package admin

import (
	"fmt"
	"slices"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

func problemsCard(s *Status) g.Node {
	return card("wrong", "card", "What went wrong",
		g.Map(s.Warnings, warning),
		faultList(s),
		el("h3", text("What the proxy rejected")),
		denialList(s),
	)
}

func warning(s string) g.Node {
	return el("p", class("warning"), el("b", text("Warning:")), text(" "+printable(sentence(s))))
}

// faultList leaves out rejections, which denialList shows.
func faultList(s *Status) g.Node {
	faults := slices.DeleteFunc(slices.Clone(s.Faults), func(f event.Fault) bool {
		return slices.ContainsFunc(s.Denials, func(d event.Denial) bool { return d.Reason == f.Code })
	})
	if len(faults) == 0 {
		return textEl("p", "muted", fmt.Sprintf("Nothing in the last %d minutes.", s.minutes()))
	}
	return el("ul", class("faults"), g.Map(faults, func(f event.Fault) g.Node {
		return problemItem(f.Code,
			textEl("b", "culprit "+string(f.Component), capitalize(string(f.Component))),
			textEl("p", "when", fmt.Sprintf("%d in %d min, %d in the last one; most recently %s", f.Window, s.minutes(), f.LastMinute, formatAgo(s.Now, f.LastAt))),
			g.If(saysMore(f), textEl("p", "detail", printable(f.LastError))))
	}))
}

// saysMore reports whether the last error of a fault has to be shown beside its summary
// and remedy. A client's own mistakes are for its own log.
func saysMore(f event.Fault) bool {
	return f.LastError != "" && f.LastError != f.Code.Kind().Explanation() && f.Component != event.ComponentClient
}

func denialList(s *Status) g.Node {
	if len(s.Denials) == 0 {
		return textEl("p", "muted", "Nothing since the start.")
	}
	return el("ul", class("faults"), g.Map(s.Denials, func(d event.Denial) g.Node {
		count := fmt.Sprintf("%d since the start", d.Count)
		if d.Passed > 0 {
			count += fmt.Sprintf(", of which %d passed (PROXY_ALLOW_MODE=report)", d.Passed)
		}
		return problemItem(d.Reason,
			el("code", text(string(d.Reason))),
			el("p", class("when"),
				text(count+"; most recently "+formatAgo(s.Now, d.LastAt)),
				g.If(d.LastPath != "", g.Group{text(": "), isolated(text(printable(d.LastMethod) + " " + printable(d.LastPath)))})))
	}))
}

// problemItem is a list item for a code: a label, the summary, details and the remedy.
func problemItem(code event.Code, whose g.Node, more ...g.Node) g.Node {
	k := code.Kind()
	return el("li", el("p", class("what"), whose, text(" "+k.Summary)), g.Group(more), textEl("p", "do", k.Remedy))
}
