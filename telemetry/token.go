package telemetry

import (
	"time"

	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// TokenStart records that a token request of an account has started.
func (t *Telemetry) TokenStart(account string) { t.recent.setRenewing(account, true) }

// Clock records how far this machine's clock is ahead of the token endpoint's; negative
// if it is behind.
func (t *Telemetry) Clock(ahead time.Duration) { t.metrics.clock().Set(ahead.Seconds()) }

// TokenDone logs and counts a finished token request of an account.
func (t *Telemetry) TokenDone(account string, trigger event.TokenTrigger, outcome event.TokenOutcome, took time.Duration, expiry time.Time, err error) {
	ev := event.TokenEvent{
		Time: time.Now().UTC().Truncate(time.Millisecond), Account: account, Trigger: trigger, Outcome: outcome,
		DurationMS: milliseconds(took),
	}
	if err != nil {
		ev.Error = t.scrub(err.Error())
	} else if !expiry.IsZero() {
		ev.Expiry = expiry.UTC().Truncate(time.Millisecond)
	}
	t.metrics.tokens.WithLabelValues(account, string(trigger), string(outcome)).Inc()
	t.metrics.tokenDuration.WithLabelValues(account).Observe(took.Seconds())
	t.recent.addToken(ev)
	t.logToken(ev)
}

// logToken logs a token event. Rejected credentials are an error, since they need an
// operator. Other failures may be temporary and are warnings.
func (t *Telemetry) logToken(ev event.TokenEvent) {
	level, msg := zerolog.InfoLevel, "token renewed"
	if ev.Error != "" {
		level, msg = zerolog.WarnLevel, "token request failed"
	}
	if ev.Outcome == event.TokenRefused {
		level = zerolog.ErrorLevel
	}
	e := t.log.WithLevel(level)
	if e == nil {
		return
	}
	e.Str(timeField, formatTime(ev.Time)).Str(t.msgField, msg).Str("account", ev.Account).
		Str("trigger", string(ev.Trigger)).Str("outcome", string(ev.Outcome)).Float64("duration_ms", ev.DurationMS)
	if !ev.Expiry.IsZero() {
		e.Str("expiry", formatTime(ev.Expiry))
	}
	optional(e, "error", ev.Error)
	e.Send()
}
