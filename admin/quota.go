package admin

import (
	"fmt"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// quotasCard has a row for each function whose quota is known.
func quotasCard(s *Status) g.Node {
	if len(s.Quotas) == 0 {
		return rateLimitCard(s)
	}
	columns := []column{{Name: "Function"}, {Name: "Account"}, {Name: "Left"}, {Name: "Resets"}, {Name: "Calls in this quota's window"}, {Name: "Paced since the start"}}
	return tableCard("quotas", "Mimecast's quotas now", columns, s.Quotas, func(q event.Quota) []g.Node {
		left := g.Group{text(fmt.Sprintf("%d of %d", q.Remaining, q.Limit))}
		if nearlyUsed(q, s.Now) {
			left = append(left, text(" "), textEl("span", "tag mark", "nearly used up"))
		}
		return []g.Node{text(printable(q.Path)), text(q.Account), left, resetNode(q.Reset, s.Now), text(usedBy(q)), text(paced(q))}
	})
}

// nearlyUsed reports whether at most a tenth of a quota is left.
func nearlyUsed(q event.Quota, now time.Time) bool {
	return q.Limit > 0 && q.Remaining*10 <= q.Limit && q.Reset.After(now)
}

func resetNode(at, now time.Time) g.Node {
	if at.IsZero() {
		return text("")
	}
	return timeEl(at, formatUntil(at, now))
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

// rateLimitCard shows the latest quota if none is known by function; none if there is no
// such either.
func rateLimitCard(s *Status) g.Node {
	l := s.RateLimit
	if l == nil {
		return nil
	}
	left := formatCount(l.Remaining) + " of " + formatCount(l.Limit) + " calls left"
	if at := formatReset(l, s.Now); at != "" {
		left += ", resets " + at
	}
	return card("quotas", "card", "Mimecast's quotas now", el("p", text(left)),
		textEl("p", "when", "Mimecast's response "+formatAgo(s.Now, l.SeenAt)+"; the function is not known."))
}

// formatReset returns when the quota resets; empty if Mimecast did not say.
func formatReset(l *event.RateLimit, now time.Time) string {
	if l.ResetMS == nil {
		return ""
	}
	return formatUntil(l.SeenAt.Add(time.Duration(*l.ResetMS*float64(time.Millisecond))), now)
}
