package admin

import (
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// formatQuota returns how much of a quota is left.
func formatQuota(l *event.RateLimit) string {
	return formatCount(l.Remaining) + " of " + formatCount(l.Limit)
}

// formatReset returns when the quota resets; empty if Mimecast did not say.
func formatReset(l *event.RateLimit, now time.Time) string {
	if l.ResetMS == nil {
		return ""
	}
	at := l.SeenAt.Add(time.Duration(*l.ResetMS * float64(time.Millisecond)))
	if !at.After(now) {
		return "by now"
	}
	return formatUntil(at, now)
}

// rateLimitSection shows the latest quota.
func rateLimitSection(s *Status) g.Node {
	title := el("h3", text("Mimecast's rate limit"))
	l := s.RateLimit
	if l == nil {
		return g.Group{title, textEl("p", "muted", "Mimecast has sent none yet.")}
	}
	left := formatQuota(l) + " calls left"
	if at := formatReset(l, s.Now); at != "" {
		left += ", all of them " + at
	}
	return g.Group{
		title, el("p", text(left)),
		textEl("p", "when", "as Mimecast said "+formatAgo(s.Now, l.SeenAt)+" of the function that was called"),
	}
}
