package admin

import (
	"cmp"
	"fmt"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// maxExamples is how many requests are shown for each code.
const maxExamples = 3

func problemsCard(s *Status) g.Node {
	return card("wrong", "card", fmt.Sprintf("Errors in the last %d minutes", s.minutes()),
		g.Map(s.Warnings, warning),
		faultList(s),
		el("h3", text(fmt.Sprintf("Rejected by the proxy in the last %d minutes", s.minutes()))),
		denialList(s),
	)
}

func warning(s string) g.Node {
	return el("p", class("warning"), el("b", text("Warning:")), text(" "+printable(sentence(s))))
}

// faultList leaves out rejections, which denialList shows.
func faultList(s *Status) g.Node {
	var items g.Group
	for _, f := range s.Faults {
		if !f.Code.Kind().Rejection || f.Component == event.ComponentMimecast {
			items = append(items, problemItem(s, f.Code.KindOf(f.Component), plural(f.Window, "request")+", last "+formatAgo(s.Now, f.LastAt), f.LastError))
		}
	}
	if len(items) == 0 {
		return textEl("p", "muted", "None.")
	}
	return el("ul", class("faults"), items)
}

func denialList(s *Status) g.Node {
	var items g.Group
	for _, d := range s.Denials {
		if d.Window == 0 {
			continue
		}
		count := plural(d.Window, "request")
		if d.WindowPassed > 0 {
			count += fmt.Sprintf(", %d of them passed (PROXY_ALLOW_MODE=report)", d.WindowPassed)
		}
		items = append(items, problemItem(s, d.Reason.Kind(), count+", last "+formatAgo(s.Now, d.LastAt), ""))
	}
	if len(items) == 0 {
		return textEl("p", "muted", "None.")
	}
	return el("ul", class("faults"), items)
}

// problemItem is a list item for a kind of problem: component, summary, numbers, the last requests
// and the remedy.
func problemItem(s *Status, k event.Kind, numbers, lastError string) g.Node {
	return el("li",
		el("p", class("what"), textEl("b", "component "+string(k.Component), k.Summary), text(" · "+componentNames[k.Component]+" · "), codeLink(string(k.Code))),
		textEl("p", "when", numbers),
		examples(s, k, lastError),
		textEl("p", "do", k.Remedy))
}

// examples are the last requests with a code. What the summary and the remedy do not say
// stands once before those that it is about.
func examples(s *Status, k event.Kind, lastError string) g.Node {
	requests := lastErrors(s, maxExamples, func(r event.Request) bool { return r.Fault == k.Code })
	if len(requests) == 0 {
		return detail(k, lastError)
	}
	var all, list g.Group
	said := ""
	end := func() {
		if len(list) > 0 {
			all = append(all, el("ul", class("examples"), list))
		}
		list = nil
	}
	for i, r := range requests {
		if i == 0 || r.Error != said {
			end()
			said = r.Error
			all = append(all, detail(k, said))
		}
		list = append(list, example(r))
	}
	end()
	return all
}

// detail shows the text of an error if it says more than its code.
func detail(k event.Kind, explanation string) g.Node {
	return g.If(explanation != "" && explanation != k.Explanation(), textEl("p", "detail", printable(explanation)))
}

func example(r event.Request) g.Node {
	return el("li", stamp(r.Time), text(" "), requestLine(r.Method, r.Path), text(fmt.Sprintf(": %d, client ", r.Status)), clientName(cmp.Or(r.Client, "unknown"), r.Account),
		g.Map(ids(r), func(id string) g.Node { return g.Group{text(" "), textEl("span", "id", id)} }))
}
