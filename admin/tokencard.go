package admin

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

func tokenCard(s *Status) g.Node {
	return card("token", "card", "Token",
		lifetimeMeter(&s.Token, s.Now),
		tokenFacts(s),
		lastFailure(s),
		tokenEvents(s.TokenEvents),
		retryCounts(s.Retries),
	)
}

// lifetimeMeter shows how much of the token's lifetime is left.
func lifetimeMeter(t *TokenState, now time.Time) g.Node {
	if !t.Held {
		return nil
	}
	percent := strconv.Itoa(lifetimeLeft(t, now))
	bar := func(of, width string) g.Node {
		return el("rect", class(of), attr("width", width), attr("height", "4"))
	}
	return svg("0 0 100 4", percent+" percent of the token's lifetime left", class("meter"), bar("track", "100"), bar("level", percent))
}

// lifetimeLeft returns how much of the lifetime is left, in percent; 0 for a token that
// is not valid.
func lifetimeLeft(t *TokenState, now time.Time) int {
	life := t.Expiry.Sub(t.FetchedAt)
	if life <= 0 || !t.Usable() {
		return 0
	}
	return int(min(max(t.Expiry.Sub(now)*100/life, 0), 100))
}

func tokenFacts(s *Status) g.Node {
	t := &s.Token
	facts := g.Group{class("facts"), definition("State", text(tokenState(s)))}
	if t.Held {
		term, when := "Expired", formatAgo(s.Now, t.Expiry)
		if t.Expiry.After(s.Now) {
			term, when = "Expires", formatUntil(t.Expiry, s.Now)
		}
		facts = append(facts,
			definition("Age", text(formatDuration(s.Now.Sub(t.FetchedAt)))),
			definition(term, g.Group{text(when + ", at "), stamp(t.Expiry)}))
	}
	switch {
	case t.LastError != "":
		next := formatUntil(t.RetryAt, s.Now)
		if t.Failures != 0 {
			next += fmt.Sprintf(" (%d failed so far)", t.Failures)
		}
		facts = append(facts, definition("Next try", text(next)))
	case t.Held:
		facts = append(facts, definition("Next renewal", text(formatUntil(t.NextRenewal, s.Now))))
	}
	return el("dl", facts...)
}

func tokenState(s *Status) string {
	state := "none"
	switch {
	case s.Token.Rejected:
		state = "rejected by Mimecast"
	case s.Token.Valid:
		state = "valid"
	case s.Token.Held:
		state = "expired"
	}
	if s.Renewing {
		state += ", request in progress"
	}
	return state
}

// lastFailure shows the last token request that failed, and its impact if none has
// succeeded since.
func lastFailure(s *Status) g.Node {
	t := &s.Token
	switch {
	case t.LastError != "":
		return g.Group{
			el("h3", text("Last failed token request, "), timeEl(t.FailedAt, formatAgo(s.Now, t.FailedAt))),
			el("p", text(printable(sentence(t.LastError)))),
			textEl("p", "do", failureImpact(t)),
		}
	case s.TokenFailure != nil:
		return g.Group{
			el("h3", text("Last failed token request, "), timeEl(s.TokenFailure.Time, formatAgo(s.Now, s.TokenFailure.Time)), text(", resolved since")),
			textEl("p", "detail", printable(sentence(s.TokenFailure.Error))),
		}
	default:
		return textEl("p", "muted", "No token request failed since the start.")
	}
}

// failureImpact says what a failed token request means for requests.
func failureImpact(t *TokenState) string {
	switch {
	case t.Refused:
		return event.CredentialsRefused.Kind().Remedy
	case t.Rejected:
		return "The proxy keeps trying. Until it succeeds, requests get 503, or Mimecast's 401 if its code does not name the token."
	case t.Valid:
		return "The proxy keeps trying. Until this one expires, requests pass."
	default:
		return "The proxy keeps trying. Until it succeeds, requests get 503."
	}
}

func tokenEvents(events []event.TokenEvent) g.Node {
	if len(events) == 0 {
		return nil
	}
	return el("details", id("token-events"),
		el("summary", id("token-events-summary"), text("Last token requests")),
		el("ul", class("events"), g.Map(events, func(e event.TokenEvent) g.Node {
			return el("li",
				stamp(e.Time), text(" "),
				el("b", g.If(e.Error != "", class("failure")), text(string(e.Outcome))),
				text(" in "+formatMS(e.DurationMS)+", "+e.Trigger.Summary()),
			)
		})),
	)
}

// retryCounts shows how Mimecast's 401 responses ended.
func retryCounts(byOutcome map[event.RetryOutcome]uint64) g.Node {
	if len(byOutcome) == 0 {
		return nil
	}
	return g.Group{
		el("h3", text("Mimecast's 401 responses since the start")),
		el("ul", class("events"), g.Map(slices.Sorted(maps.Keys(byOutcome)), func(outcome event.RetryOutcome) g.Node {
			return el("li", el("b", text(strconv.FormatUint(byOutcome[outcome], 10))), text(" "+outcome.Summary()))
		})),
	}
}
