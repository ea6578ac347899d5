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
		el("div", class("bar"), el("h2", id("requests-title"), text("Last requests")), f.form()),
		el("div", id("list"), dataLive(), requestList(s, f)),
	)
}

// requestList has the requests that f lets through.
func requestList(s *Status, f filter) g.Node {
	shown := f.apply(s.Requests)
	list := g.Group{textEl("p", "muted count", fmt.Sprintf("%d of the last %d, newest first. Search finds what a row shows, apart from times.", len(shown), len(s.Requests)))}
	switch {
	case len(shown) > 0:
		return append(list, requestTable(shown))
	case len(s.Requests) > 0:
		return append(list, textEl("p", "empty", "No request matches the filter."))
	case s.Listen != "":
		return append(list, textEl("p", "empty", "No request yet at "+s.Listen+"."))
	default:
		return append(list, textEl("p", "empty", "No request yet."))
	}
}

// requestTable names its roles: on phones, page.css displays rows as blocks, and browsers
// then no longer treat it as a table.
func requestTable(requests []event.Request) g.Node {
	columns := []column{zoned("Time"), {Name: "Status"}, {Name: "Request"}, {Name: "Client"}, {Name: "Took", Numeric: true}, {Name: "At Mimecast", Numeric: true}, {Name: "IDs"}}
	return el("table", attr("role", "table"), attr("aria-labelledby", "requests-title"),
		el("thead", attr("role", "rowgroup"), el("tr", attr("role", "row"), g.Map(columns, column.head))),
		el("tbody", attr("role", "rowgroup"), g.Map(requests, row)),
	)
}

func row(r event.Request) g.Node {
	cell := func(of string, with ...g.Node) g.Node {
		return el("td", attr("role", "cell"), class(of), g.Group(with))
	}
	lines := func(of string, all []string) g.Node {
		return g.Map(all, func(line string) g.Node { return textEl("span", of, line) })
	}
	t := textsOf(r)
	return el("tr", attr("role", "row"), class(statusClass(r)),
		cell("time", clock(r.Time)),
		cell("status", textEl("span", "badge "+statusClass(r), t.status), g.If(t.retried != "", g.Group{text(" "), textEl("span", "tag", t.retried)})),
		cell("request", isolated(el("b", text(t.method)), text(" "+t.path)),
			g.If(r.Fault != "", el("span", class("detail"), text(t.problem+" · "), codeLink(string(r.Fault))))),
		cell("client", lines("line", t.client)),
		cell("num took", text(formatMS(r.DurationMS))),
		cell("num upstream", g.If(r.UpstreamMS != 0, text(formatMS(r.UpstreamMS)))),
		cell("id", lines("line", t.ids)),
	)
}

// texts are what a row shows of a request, apart from times. A search looks at these and
// at nothing else, so that a match can always be seen.
type texts struct {
	method, path, status, retried, problem string
	client, ids                            []string
}

func textsOf(r event.Request) texts {
	t := texts{method: printable(r.Method), path: printable(r.Path), status: strconv.Itoa(r.Status), client: []string{printable(r.Client)}, ids: ids(r)}
	if r.Retried {
		t.retried = "retried"
	}
	if r.Fault != "" {
		k := r.Fault.Kind()
		t.problem = k.Summary + " · " + componentNames[k.Component]
	}
	if r.Account != "" {
		t.client = append(t.client, "account "+printable(r.Account))
	}
	if r.Route != "" {
		t.client = append(t.client, "route "+printable(r.Route))
	}
	return t
}

// statusClass returns how a request's status is coloured.
func statusClass(r event.Request) string {
	switch {
	case r.Fault == "":
		return "fine"
	case r.Component == event.ComponentClient:
		return "client"
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

var views = []choice{{"all", "all"}, {"wrong", "errors"}, {"retried", "retried"}, {"slow", "over 1 s"}}

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
	terms := strings.Fields(f.Text)
	for i, term := range terms {
		terms[i] = strings.ToLower(printable(term)) // as a row shows it
	}
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

// matches reports whether what is shown of r contains each term.
func matches(r event.Request, terms []string) bool {
	if len(terms) == 0 {
		return true
	}
	t := textsOf(r)
	all := append(append([]string{t.method + " " + t.path, t.status, t.retried, t.problem, string(r.Fault)}, t.client...), t.ids...)
	text := strings.ToLower(strings.Join(all, "\n"))
	return !slices.ContainsFunc(terms, func(term string) bool { return !strings.Contains(text, term) })
}
