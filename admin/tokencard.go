package admin

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"mimecast-proxy/event"

	g "maragu.dev/gomponents"
)

func tokenCard(s *Status) g.Node {
	return card("token", "card", "The token",
		lifeLeft(&s.Token, s.Now),
		tokenFacts(s),
		lastFailure(s),
		tokenEvents(s.TokenEvents),
		retries(s.Retries),
		rateLimit(s),
	)
}

// lifeLeft draws how much of the token's life is left.
func lifeLeft(t *TokenState, now time.Time) g.Node {
	if !t.Held {
		return nil
	}
	percent := strconv.Itoa(left(t, now))
	bar := func(of, width string) g.Node {
		return el("rect", class(of), attr("width", width), attr("height", "4"))
	}
	return drawing("0 0 100 4", percent+" percent of the token's life are left", class("meter"), bar("track", "100"), bar("level", percent))
}

// left returns how much of the life of a token that works is left, in percent.
func left(t *TokenState, now time.Time) int {
	life := t.Expiry.Sub(t.FetchedAt)
	if life <= 0 || !t.Valid || t.Rejected {
		return 0
	}
	return int(min(max(t.Expiry.Sub(now)*100/life, 0), 100))
}

func tokenFacts(s *Status) g.Node {
	t := &s.Token
	facts := g.Group{class("facts"), fact("State", text(tokenState(s)))}
	if t.Held {
		term, when := "Expired", ago(s.Now, t.Expiry)
		if t.Valid {
			term, when = "Expires", until(t.Expiry, s.Now)
		}
		facts = append(facts,
			fact("Age", text(span(s.Now.Sub(t.FetchedAt)))),
			fact(term, moment(t.Expiry, when+", at "+clock(t.Expiry))))
	}
	switch {
	case t.LastError != "":
		next := until(t.RetryAt, s.Now)
		if t.Failures != 0 {
			next += fmt.Sprintf(" (%d failed so far)", t.Failures)
		}
		facts = append(facts, fact("Next try", text(next)))
	case t.Held:
		facts = append(facts, fact("Next renewal", text(until(t.NextRenewal, s.Now))))
	}
	return el("dl", facts...)
}

func tokenState(s *Status) string {
	state := "none held"
	switch {
	case s.Token.Rejected:
		state = "held, but rejected by Mimecast"
	case s.Token.Valid:
		state = "held and valid"
	case s.Token.Held:
		state = "expired"
	}
	if s.Renewing {
		state += ", being fetched"
	}
	return state
}

// lastFailure tells the last token request that failed, and what that means
// where none has succeeded since.
func lastFailure(s *Status) g.Node {
	t := &s.Token
	switch {
	case t.LastError != "":
		return g.Group{
			el("h3", text("Last failure, "+ago(s.Now, t.FailedAt))),
			el("p", text(plain(sentence(t.LastError)))),
			say("p", "do", consequence(t)),
		}
	case s.TokenFailure != nil:
		return g.Group{
			el("h3", text("Last failure, "+ago(s.Now, s.TokenFailure.Time)+", made good since")),
			say("p", "detail", plain(sentence(s.TokenFailure.Error))),
		}
	default:
		return say("p", "muted", "No token request has failed.")
	}
}

// consequence says what it means for requests that no new token is to be had.
func consequence(t *TokenState) string {
	switch {
	case t.Refused:
		return event.CredentialsRefused.Kind().Remedy
	case t.Rejected:
		return "The proxy keeps trying. Until it succeeds, requests get Mimecast's 401."
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
				moment(e.Time, clock(e.Time)), text(" "),
				el("b", g.If(e.Error != "", class("failure")), text(string(e.Outcome))),
				text(" in "+ms(e.DurationMS)+", "+e.Trigger.Summary()),
			)
		})),
	)
}

// retries counts how Mimecast's 401 answers ended.
func retries(byOutcome map[event.RetryOutcome]uint64) g.Node {
	if len(byOutcome) == 0 {
		return nil
	}
	return g.Group{
		el("h3", text("Mimecast's 401 responses so far")),
		el("ul", class("events"), g.Map(slices.Sorted(maps.Keys(byOutcome)), func(outcome event.RetryOutcome) g.Node {
			return el("li", el("b", text(strconv.FormatUint(byOutcome[outcome], 10))), text(" "+outcome.Summary()))
		})),
	}
}
