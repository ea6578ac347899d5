package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

func requestsCard(s *Status, f filter) g.Node {
	return el("section", id("requests"), class("card"), attr("aria-labelledby", "requests-title"), attr("tabindex", "-1"),
		el("div", class("bar"), el("h2", id("requests-title"), text("The last requests")), f.form()),
		el("div", id("list"), dataLive(), requestList(s, f)),
	)
}

// requestList has the requests that f lets through.
func requestList(s *Status, f filter) g.Node {
	shown := f.apply(s.Requests)
	list := g.Group{textEl("p", "muted count", fmt.Sprintf("%d of %d, newest first. Times are UTC.", len(shown), len(s.Requests)))}
	switch {
	case len(shown) > 0:
		return append(list, requestTable(shown))
	case len(s.Requests) > 0:
		return append(list, textEl("p", "empty", "None of them fits the filter."))
	case s.Listen != "":
		return append(list, textEl("p", "empty", "No request has come yet to "+s.Listen+"."))
	default:
		return append(list, textEl("p", "empty", "No request has come yet."))
	}
}

// requestTable names its roles: on phones, page.css displays rows as blocks, and browsers
// then no longer treat it as a table.
func requestTable(requests []event.Request) g.Node {
	column := func(name string, with ...g.Node) g.Node {
		return el("th", attr("role", "columnheader"), attr("scope", "col"), g.Group(with), text(name))
	}
	numeric := class("num")
	return el("table", attr("role", "table"), attr("aria-labelledby", "requests-title"),
		el("thead", attr("role", "rowgroup"), el("tr", attr("role", "row"),
			column("Time"), column("Status"), column("Request"), column("Took", numeric), column("of it Mimecast", numeric),
			column("Retried"), column("Mimecast's request ID"),
		)),
		el("tbody", attr("role", "rowgroup"), g.Map(requests, row)),
	)
}

func row(r event.Request) g.Node {
	cell := func(of string, with ...g.Node) g.Node {
		return el("td", attr("role", "cell"), class(of), g.Group(with))
	}
	return el("tr", attr("role", "row"), class(statusClass(r)),
		cell("time", timeEl(r.Time, formatClock(r.Time))),
		cell("status", textEl("span", "badge "+statusClass(r), strconv.Itoa(r.Status))),
		cell("request", isolated(el("b", text(printable(r.Method))), text(" "+printable(r.Path))), problemText(r)),
		cell("num took", text(formatMS(r.DurationMS))),
		cell("num upstream", g.If(r.UpstreamMS != 0, text(formatMS(r.UpstreamMS)))),
		cell("again", g.If(r.Retried, textEl("span", "tag", "retried"))),
		cell("id", text(printable(r.MimecastID))),
	)
}

// problemText shows what went wrong with r, if anything did.
func problemText(r event.Request) g.Node {
	what := printable(r.Error)
	if r.Fault != "" {
		what = r.Fault.Kind().Summary
		if r.Error != "" && r.Error != r.Fault.Kind().Explanation() && r.Component != event.ComponentClient {
			what += " (" + printable(r.Error) + ")"
		}
	}
	return g.If(what != "", textEl("span", "detail", what))
}

// statusClass returns how a request's status is coloured.
func statusClass(r event.Request) string {
	switch {
	case r.Fault == "":
		return "fine"
	case r.Component == event.ComponentClient:
		return "tool"
	default:
		return "failed"
	}
}

// filter narrows the list of requests.
type filter struct {
	Text string
	// Show is one of the values of views.
	Show string
}

type choice struct{ Value, Label string }

var views = []choice{{"all", "all"}, {"wrong", "that went wrong"}, {"retried", "sent again"}, {"slow", "over one second"}}

func newFilter(query url.Values) filter {
	f := filter{Text: query.Get("q"), Show: "all"}
	for _, c := range views {
		if c.Value == query.Get("show") {
			f.Show = c.Value
		}
	}
	return f
}

func (f filter) form() g.Node {
	option := func(c choice) g.Node {
		return el("option", attr("value", c.Value), g.If(c.Value == f.Show, boolAttr("selected")), text(c.Label))
	}
	return el("form", id("filter"), class("filter"), attr("method", "get"), attr("action", "/"), attr("role", "search"),
		el("label", el("span", text("Find")), text(" "),
			el("input", id("q"), attr("type", "search"), attr("name", "q"), attr("value", strings.ToValidUTF8(f.Text, "\uFFFD")),
				attr("placeholder", "path, status, ID …"), attr("autocomplete", "off"), attr("spellcheck", "false"))),
		el("label", el("span", text("Show")), text(" "), el("select", id("show"), attr("name", "show"), g.Map(views, option))),
		el("button", attr("type", "submit"), class("unscripted"), text("Filter")),
		el("button", attr("type", "button"), id("hold"), attr("aria-pressed", "false"), boolAttr("hidden"), text("Hold the list")),
	)
}

func (f filter) apply(requests []event.Request) []event.Request {
	terms := strings.Fields(strings.ToLower(f.Text))
	return slices.DeleteFunc(slices.Clone(requests), func(r event.Request) bool { return !f.includes(r) || !matches(r, terms) })
}

func (f filter) includes(r event.Request) bool {
	switch f.Show {
	case "wrong":
		return r.Fault != ""
	case "retried":
		return r.Retried
	case "slow":
		return r.DurationMS > 1000
	default:
		return true
	}
}

// matches reports whether r contains each term.
func matches(r event.Request, terms []string) bool {
	text := strings.ToLower(strings.Join([]string{
		r.Method, r.Path, strconv.Itoa(r.Status), r.RequestID, r.MimecastID, r.TraceID, r.Client, r.Route, string(r.Fault), string(r.Component), r.Error,
	}, "\n"))
	return !slices.ContainsFunc(terms, func(term string) bool { return !strings.Contains(text, term) })
}
