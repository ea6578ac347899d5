// Package telemetry writes the access log, serves the metrics, and keeps recent
// requests for the status page. Only this package imports zerolog and Prometheus.
//
// The other packages report through optional funcs, whose signatures the methods of
// [Telemetry] have. This package never writes a secret, token, query, header value or
// body. It scrubs texts, removes the secrets that a [Redactor] knows, and takes labels
// only from closed sets.
package telemetry

import (
	"cmp"
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// Options configures a [Telemetry]. The zero value logs nothing and serves metrics.
type Options struct {
	// Output receives the log; nil discards it. Requests wait for Output, unless it is
	// a [LogWriter].
	Output io.Writer
	// Redactor removes the current secrets from everything logged, kept and shown. nil
	// removes nothing.
	Redactor *Redactor
	// Level is trace, debug, info, warn or error; empty means info.
	Level string
	// Format is json, console, gcp or auto; empty means auto. gcp is JSON for Google
	// Cloud Logging. auto is console on a terminal and json otherwise.
	Format string
	// Terminal reports whether Output is a terminal.
	Terminal bool
	// Version and Revision are labels of the metric build_info.
	Version, Revision string
	// Routes are the route patterns to count requests by, with presets expanded. If it
	// is empty, no requests are counted by route.
	Routes []string
	// Clients reports whether clients have names. If so, requests are counted by
	// client.
	Clients bool
	// MaxRequests and ReplayMemory (in bytes) are the limits of requests_in_flight and
	// replay_buffer_bytes. They are also metrics, so that alerts can compute a ratio. 0
	// adds no metric.
	MaxRequests, ReplayMemory int64
	// Tokens returns the state of the accounts' tokens; nil adds no token metrics.
	Tokens func() []event.Token
	// Ended is called with the outcome of each request; it may be nil.
	Ended func(event.Outcome)
	// Health returns the current health for the metrics; nil adds no health metrics.
	// State returns the last judged state, for the level of log lines; nil means always
	// ok.
	Health func() event.Health
	State  func() event.HealthState
}

// Telemetry logs, counts and keeps requests and events. Create it with [New].
type Telemetry struct {
	log      zerolog.Logger
	msgField string // name of the message field
	redactor *Redactor
	metrics  *metrics
	recent   recent
	tunnels  tunnelLog
	rejected rejections
	started  time.Time
	version  string
	onEnd    func(event.Outcome)
	state    func() event.HealthState
	// inFlight is for the metrics, and busySince for the status page.
	inFlight     atomic.Int64
	inFlightList inFlightList
	busySince    atomic.Int64 // since when at least one request is in flight, in Unix nanoseconds
}

// New returns a Telemetry with a new metrics registry. The error names the invalid
// option.
func New(o Options) (*Telemetry, error) {
	log, err := newLog(o)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		log: log, msgField: messageField(o.Format), redactor: o.Redactor,
		started: time.Now().Round(0), version: cmp.Or(o.Version, "unknown"),
		onEnd: o.Ended, state: o.State,
	}
	t.recent.patterns = o.Routes
	t.metrics = newMetrics(o, t)
	t.recent.byClient = t.metrics.byClient
	if w, ok := o.Output.(*LogWriter); ok {
		w.attach(dropNotice(o), t.logRejected)
	}
	return t, nil
}

// scrub redacts and scrubs a text of unknown origin.
func (t *Telemetry) scrub(s string) string { return Scrub(t.redactor.Redact(s)) }

// RequestID returns the ID that the log uses for the request of ctx; empty if ctx has
// no request.
func RequestID(ctx context.Context) string {
	if r, ok := ctx.Value(recordKey{}).(*record); ok {
		return r.id
	}
	return ""
}
