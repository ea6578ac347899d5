package admin

import (
	"cmp"
	"fmt"
	"strconv"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// accountsCard has a row for each account; none if there is one account, which the rest
// of the page is about.
func accountsCard(s *Status) g.Node {
	if len(s.Accounts) < 2 {
		return nil
	}
	columns := []column{{Name: "Account"}, {Name: "State"}, {Name: "Client ID"}, {Name: "API"}, {Name: "Token"}, {Name: "In flight now"}}
	return tableCard("accounts", "Accounts", columns, s.Accounts, func(a Account) []g.Node {
		return []g.Node{
			text(a.Name), judged(s.Health.Accounts, a.Name, s.Now), text(a.ClientID), text(cmp.Or(a.Region, a.BaseURL)),
			text(tokenSummary(s, a.Token)), text(strconv.Itoa(a.InFlight)),
		}
	})
}

// tokenSummary says in a few words how a token is.
func tokenSummary(s *Status, t TokenState) string {
	switch {
	case t.Refused:
		return "none: credentials rejected"
	case t.LastError != "" && t.Valid:
		return "not renewed, expires " + formatUntil(t.Expiry, s.Now)
	case t.LastError != "":
		return "none: " + printable(t.LastError)
	case t.Rejected:
		return "rejected by Mimecast"
	case t.Valid:
		return "expires " + formatUntil(t.Expiry, s.Now)
	case t.Held:
		return "expired"
	default:
		return "none yet"
	}
}

// clientsCard has a row for each client with a name that has sent a request.
func clientsCard(s *Status) g.Node {
	if len(s.Clients) == 0 {
		return nil
	}
	columns := append([]column{{Name: "Client"}, {Name: "State"}, {Name: "Account"}}, usageColumns...)
	return tableCard("clients", fmt.Sprintf("Clients in the last %d minutes", s.minutes()), columns, s.Clients, func(c event.Client) []g.Node {
		return append([]g.Node{text(c.Name), judged(s.Health.Clients, c.Name, s.Now), text(c.Account)}, usageCells(s, c.Usage)...)
	})
}

// routesCard has a row for each route of PROXY_ALLOW.
func routesCard(s *Status) g.Node {
	if len(s.Routes) == 0 {
		return nil
	}
	columns := append([]column{{Name: "Route"}}, usageColumns...)
	return tableCard("routes", fmt.Sprintf("Routes in the last %d minutes", s.minutes()), columns, s.Routes, func(r event.Route) []g.Node {
		return append([]g.Node{el("code", text(printable(r.Pattern)))}, usageCells(s, r.Usage)...)
	})
}

var usageColumns = []column{{Name: "Requests", Numeric: true}, {Name: "Failed", Numeric: true}, {Name: "Rejected", Numeric: true}, {Name: "95 % within", Numeric: true}, {Name: "Last request"}}

func usageCells(s *Status, u event.Usage) []g.Node {
	number := func(n uint32) g.Node { return text(strconv.FormatUint(uint64(n), 10)) }
	took, last := text(""), text("none since the start")
	if u.P95MS > 0 {
		took = text(formatMS(u.P95MS))
	}
	if !u.LastAt.IsZero() {
		last = timeEl(u.LastAt, formatAgo(s.Now, u.LastAt))
	}
	return []g.Node{number(u.Requests), number(u.Failed), number(u.Rejected), took, last}
}

// column is the head of a table's column.
type column struct {
	Name    string
	Numeric bool
	zone    bool // its times are in the zone that the page shows
}

// zoned is a column of times.
func zoned(name string) column { return column{Name: name, zone: true} }

func (c column) head() g.Node {
	return el("th", attr("role", "columnheader"), attr("scope", "col"), g.If(c.Numeric, class("num")), text(c.Name), g.If(c.zone, g.Group{text(", "), zone()}))
}

// tableCard is a card with a table.
func tableCard[T any](name, title string, columns []column, rows []T, cells func(T) []g.Node) g.Node {
	return card(name, "card", title, table(name+"-title", columns, rows, cells))
}

// table is a table, of which the first column names the row. It names its roles for the
// same reason as requestTable. On phones page.css shows the name of a column before each
// of its cells.
func table[T any](label string, columns []column, rows []T, cells func(T) []g.Node) g.Node {
	role := func(of string) g.Node { return attr("role", of) }
	return el("table", class("plain"), role("table"), attr("aria-labelledby", label),
		el("thead", role("rowgroup"), el("tr", role("row"), g.Map(columns, column.head))),
		el("tbody", role("rowgroup"), g.Map(rows, func(row T) g.Node {
			nodes := cells(row)
			tr := g.Group{role("row"), el("th", role("rowheader"), attr("scope", "row"), nodes[0])}
			for i, cell := range nodes[1:] {
				tr = append(tr, el("td", role("cell"), attr("data-column", columns[i+1].Name), g.If(columns[i+1].Numeric, class("num")), cell))
			}
			return el("tr", tr...)
		})),
	)
}
