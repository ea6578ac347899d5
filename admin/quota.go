package admin

import (
	"time"

	"mimecast-proxy/event"

	g "maragu.dev/gomponents"
)

// quota returns what is left of a rate limit.
func quota(l *event.RateLimit) string { return number(l.Remaining) + " of " + number(l.Limit) }

// reset returns when Mimecast gives the quota back, where it said so.
func reset(l *event.RateLimit, now time.Time) string {
	if l.ResetMS == nil {
		return ""
	}
	at := l.SeenAt.Add(time.Duration(*l.ResetMS * float64(time.Millisecond)))
	if !at.After(now) {
		return "by now"
	}
	return until(at, now)
}

// rateLimit tells what Mimecast said last.
func rateLimit(s *Status) g.Node {
	title := el("h3", text("Mimecast's rate limit"))
	l := s.RateLimit
	if l == nil {
		return g.Group{title, say("p", "muted", "Mimecast has not told one.")}
	}
	left := quota(l) + " calls left"
	if at := reset(l, s.Now); at != "" {
		left += ", all of them " + at
	}
	return g.Group{
		title, el("p", text(left)),
		say("p", "when", "as Mimecast said "+ago(s.Now, l.SeenAt)+" of the function that was called"),
	}
}
