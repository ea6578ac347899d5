package admin

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// accountsCard has a row for each account; none if there is one account, which the rest
// of the page is about.
func accountsCard(s *Status) g.Node {
	if len(s.Accounts) < 2 {
		return nil
	}
	return tableCard("accounts", "Accounts", []string{"Account", "Client ID", "API", "Token", "In flight"}, s.Accounts, func(a Account) []string {
		return []string{a.Name, a.ClientID, cmp.Or(a.Region, a.BaseURL), tokenSummary(s, a.Token), strconv.Itoa(a.InFlight)}
	})
}

// tokenSummary says in a few words how a token is.
func tokenSummary(s *Status, t TokenState) string {
	switch {
	case t.Refused:
		return "credentials refused"
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
	return tableCard("clients", "Clients since the start", []string{"Client", "Account", "Requests", "Failed", "Rejected", "95 % within", "Last request"}, s.Clients, func(c event.Client) []string {
		return []string{
			c.Name, c.Account, strconv.FormatUint(c.Requests, 10), strconv.FormatUint(c.Failed, 10), strconv.FormatUint(c.Rejected, 10),
			formatMS(c.P95MS), formatAgo(s.Now, c.LastAt),
		}
	})
}

// quotasCard has a row for each function whose quota is known.
func quotasCard(s *Status) g.Node {
	if len(s.Quotas) == 0 {
		return nil
	}
	return tableCard("quotas", "Mimecast's quotas", []string{"Function", "Account", "Left", "Resets", "Calls in this window", "Paced since the start"}, s.Quotas, func(q event.Quota) []string {
		reset := ""
		if !q.Reset.IsZero() {
			reset = formatUntil(q.Reset, s.Now)
		}
		return []string{printable(q.Path), q.Account, fmt.Sprintf("%d of %d", q.Remaining, q.Limit), reset, usedBy(q), paced(q)}
	})
}

// usedBy says who made the calls of a window.
func usedBy(q event.Quota) string {
	var users []string
	for _, c := range q.Clients {
		users = append(users, fmt.Sprintf("%s %d", printable(c.Client), c.Calls))
	}
	if q.Others > 0 {
		users = append(users, fmt.Sprintf("elsewhere %d", q.Others))
	}
	if q.Limited > 0 {
		users = append(users, fmt.Sprintf("%d got 429", q.Limited))
	}
	return strings.Join(users, ", ")
}

// paced says what pacing did.
func paced(q event.Quota) string {
	var did []string
	for _, o := range event.PaceOutcomes {
		if n := q.Paced[o]; n > 0 {
			did = append(did, fmt.Sprintf("%d %s", n, o.Summary()))
		}
	}
	if q.Waiting > 0 {
		did = append(did, fmt.Sprintf("%d waiting now", q.Waiting))
	}
	return strings.Join(did, ", ")
}

// tableCard is a card with a table, of which the first column names the row. It names its
// roles for the same reason as requestTable. On phones page.css shows the name of a column
// before each of its cells.
func tableCard[T any](name, title string, columns []string, rows []T, cells func(T) []string) g.Node {
	role := func(of string) g.Node { return attr("role", of) }
	return card(name, "card", title, el("table", class("plain"), role("table"), attr("aria-labelledby", name+"-title"),
		el("thead", role("rowgroup"), el("tr", role("row"), g.Map(columns, func(column string) g.Node {
			return el("th", role("columnheader"), attr("scope", "col"), text(column))
		}))),
		el("tbody", role("rowgroup"), g.Map(rows, func(row T) g.Node {
			texts := cells(row)
			tr := g.Group{role("row"), el("th", role("rowheader"), attr("scope", "row"), text(texts[0]))}
			for i, cell := range texts[1:] {
				tr = append(tr, el("td", role("cell"), attr("data-column", columns[i+1]), text(cell)))
			}
			return el("tr", tr...)
		})),
	))
}
