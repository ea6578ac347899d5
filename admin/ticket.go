package admin

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// maxTicketErrors is how many of the last errors a ticket has.
const maxTicketErrors = 10

// ticketCard has a summary to paste into a ticket. page.js copies it; without scripts the
// user selects it.
func ticketCard(s *Status) g.Node {
	return el("section", id("ticket"), class("card"), attr("aria-labelledby", "ticket-title"),
		el("div", class("bar"),
			el("h2", id("ticket-title"), text("Summary for a ticket")),
			el("button", id("copy"), attr("type", "button"), boolAttr("hidden"), text("Copy for a ticket"))),
		el("p", id("copied"), class("acted"), attr("role", "status")),
		el("details", id("ticket-more"), el("summary", id("ticket-summary"), text("Version, health and last errors as text, without secrets")),
			el("div", id("ticket-live"), dataLive(),
				el("textarea", id("ticket-text"), boolAttr("readonly"), attr("rows", "14"), attr("spellcheck", "false"), attr("aria-labelledby", "ticket-title"), text(ticketText(s))))),
	)
}

// ticketText is the summary. Every text in it that a stranger can influence is escaped.
func ticketText(s *Status) string {
	b := new(strings.Builder)
	fmt.Fprintf(b, "Mimecast Proxy %s at %s, up %s\n", s.Version, formatStamp(s.Now), formatDuration(s.Now.Sub(s.Started)))
	writeHealth(b, s)
	for _, a := range s.Accounts {
		fmt.Fprintf(b, "Account %s: client ID %s, %s, token %s\n", a.Name, printable(a.ClientID), printable(a.BaseURL), tokenSummary(s, a.Token))
	}
	t := sumPoints(s.Points)
	fmt.Fprintf(b, "Last %d minutes: %s, %s, %d failed", s.minutes(), plural(t.Requests, "request"), plural(t.Client, "client error"), t.Failed)
	if l := s.Latency; l.Count > 0 {
		fmt.Fprintf(b, "; proxy %s, Mimecast %s (95 %% within)", formatMS(l.OwnP95MS), formatMS(l.UpstreamP95MS))
	}
	fmt.Fprintf(b, "\nIn flight: %d", s.InFlight)
	if len(s.Running) > 0 {
		oldest := s.Running[0]
		fmt.Fprintf(b, ", oldest %s, %s", formatMS(oldest.AgeMS), cmp.Or(phases[oldest.Phase], string(oldest.Phase)))
	}
	b.WriteByte('\n')
	for _, w := range s.Warnings {
		fmt.Fprintf(b, "Warning: %s\n", printable(w))
	}
	if f := s.TokenFailure; f != nil {
		fmt.Fprintf(b, "Last failed token request: %s, account %s: %s\n", formatStamp(f.Time), cmp.Or(f.Account, "default"), printable(f.Error))
	}
	writeErrors(b, s)
	return b.String()
}

func writeHealth(b *strings.Builder, s *Status) {
	h := &s.Health
	fmt.Fprintf(b, "Health: %s", h.State)
	if h.Component != "" {
		fmt.Fprintf(b, ", %s", componentNames[h.Component])
	}
	if !h.Since.IsZero() {
		fmt.Fprintf(b, ", since %s (%s)", formatStamp(h.Since), formatDuration(s.Now.Sub(h.Since)))
	}
	b.WriteByte('\n')
	if h.Cause != "" {
		fmt.Fprintf(b, "Cause: %s: %s\nShare: %s\n", h.Cause, headline(&h.Judgment), affected(&h.Judgment))
	}
	if r := recentRecovery(s); r != nil {
		fmt.Fprintf(b, "Recovered: %s (%s), %s from %s to %s\n", r.Cause, componentNames[r.Component], r.State, formatStamp(r.Since), formatStamp(r.At))
	}
}

func writeErrors(b *strings.Builder, s *Status) {
	errors := lastErrors(s, maxTicketErrors, func(r event.Request) bool { return !r.Fault.Kind().Rejected() })
	if len(errors) == 0 {
		fmt.Fprintf(b, "Errors in the last %d minutes: none\n", s.minutes())
		return
	}
	fmt.Fprintf(b, "Last errors, newest first:\n")
	last := ""
	for _, r := range errors {
		fmt.Fprintf(b, "- %s %s %s: %d %s, client %s\n  %s\n", formatStamp(r.Time), printable(r.Method), printable(r.Path), r.Status, r.Fault, printable(r.Client), strings.Join(ids(r), ", "))
		if r.Error != "" && r.Error != last {
			fmt.Fprintf(b, "  %s\n", printable(r.Error))
		}
		last = r.Error
	}
}

// ids are the request's IDs, each with whose it is.
func ids(r event.Request) []string {
	all := []string{"proxy " + printable(r.RequestID)}
	if r.MimecastID != "" {
		all = append(all, "Mimecast "+printable(r.MimecastID))
	}
	if r.TraceID != "" {
		all = append(all, "trace "+printable(r.TraceID))
	}
	return all
}

// lastErrors returns up to n requests of the window that went wrong, newest first.
func lastErrors(s *Status, n int, of func(event.Request) bool) []event.Request {
	from := s.Now.Add(-time.Duration(s.WindowSeconds) * time.Second)
	var all []event.Request
	for _, r := range s.Errors {
		if r.Fault != "" && r.Time.After(from) && of(r) && len(all) < n {
			all = append(all, r)
		}
	}
	return all
}
