package telemetry

import (
	"time"

	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// writeAccess writes the log line of a request. The line also counts the suppressed
// ones.
func (t *Telemetry) writeAccess(rec *record, o *outcome, suppressed int) {
	e := t.log.WithLevel(t.level(o))
	if e == nil {
		return
	}
	var buf [len(timeLayout) + 8]byte
	e.Bytes(timeField, rec.start.Add(o.took).UTC().AppendFormat(buf[:0], timeLayout)).
		Str(t.msgField, "request").
		Str("request_id", rec.id).
		Str("method", rec.method).
		Str("path", rec.path).
		Int("status", o.status).
		Float64("duration_ms", milliseconds(o.took)).
		Int64("bytes_in", o.in).
		Int64("bytes_out", o.out).
		Float64("upstream_ms", milliseconds(o.upstream)).
		Bool("retried", o.retried()).
		Str("peer", rec.peer)
	optional(e, "client", o.client)
	optional(e, "account", o.account)
	optional(e, "error", o.explanation())
	optional(e, "limit", o.limit)
	optional(e, "route", o.route)
	optional(e, "trace_id", rec.trace)
	optional(e, "mimecast_request_id", o.mimecast)
	optional(e, "aborted", string(o.aborted))
	if suppressed > 0 {
		e.Int("suppressed", suppressed)
	}
	e.Send()
}

// level returns the level of a request's line. It is info if nothing failed or the
// client caused the failure, and otherwise warn. It is error after a panic and during
// an outage.
func (t *Telemetry) level(o *outcome) zerolog.Level {
	switch {
	case o.panicked:
		return zerolog.ErrorLevel
	case o.component() == event.ComponentClient || o.fault == "":
		return zerolog.InfoLevel
	case t.state != nil && t.state() == event.HealthDown:
		return zerolog.ErrorLevel
	default:
		return zerolog.WarnLevel
	}
}

func optional(e *zerolog.Event, field, value string) {
	if value != "" {
		e.Str(field, value)
	}
}

// retried reports whether the request was sent to Mimecast more than once.
func (o *outcome) retried() bool { return o.resent || o.attempts > 1 }

// explanation returns the error text for the log; it may be empty.
func (o *outcome) explanation() string {
	switch {
	case o.failure != "":
		return o.failure
	case o.denied != "" && o.passed:
		return string(o.denied) + ": let through, since PROXY_ALLOW_MODE=report"
	case o.fault != "":
		return explanations[o.fault.Index()]
	default:
		return ""
	}
}

// milliseconds returns d in milliseconds, with at most three decimals.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
