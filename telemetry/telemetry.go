// Package telemetry writes the access log, serves the metrics, and remembers recent
// requests for the status page. Only this package imports zerolog and Prometheus.
//
// The other packages report through optional funcs; the methods of [Telemetry] have their
// signatures. No secret, token, query, header value or body gets into what this package
// writes: texts are scrubbed, secrets that a [Redactor] knows are removed wherever they
// stand, and labels come from closed sets.
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

// Options say where the log goes and what this build is.
type Options struct {
	// Output gets the log; nil discards it. Requests wait for it, unless it is a
	// [LogWriter].
	Output io.Writer
	// Redactor removes the secrets in force from all that is logged, remembered
	// and shown; nil removes none.
	Redactor *Redactor
	// Level is debug, info, warn or error; empty means info.
	Level string
	// Format is json, console, gcp, which is JSON as Google Cloud Logging reads it,
	// or auto, which is console on a terminal and JSON else; empty means auto.
	Format string
	// Terminal says whether Output is one.
	Terminal bool
	// Version and Revision are labels of the metric build_info.
	Version, Revision string
	// Routes are the route patterns that requests are counted by, presets
	// expanded. None means that nothing is counted by route.
	Routes []string
	// Clients reports whether clients have names, by which requests are counted.
	Clients bool
	// MaxRequests and ReplayMemory, in bytes, are the limits of requests_in_flight
	// and replay_buffer_bytes. They are metrics too, so that an alert can compute a
	// share; 0 adds no metric.
	MaxRequests, ReplayMemory int64
	// Tokens returns what the accounts' tokens are; nil adds no metrics of them.
	Tokens func() []event.Token
	// Ended is called with the outcome of each request; nil: nobody wants to know.
	Ended func(event.Outcome)
	// Health judges now, for metrics; State is the last judgment's, for the level of log
	// lines. nil: always ok, and no metrics.
	Health func() event.Health
	State  func() event.HealthState
}

// Telemetry logs, counts and remembers.
type Telemetry struct {
	log      zerolog.Logger
	msgField string // the name of the message in the log
	redactor *Redactor
	metrics  *metrics
	recent   recent
	tunnels  tunnelLog
	rejected rejections
	started  time.Time
	version  string
	onEnd    func(event.Outcome)
	state    func() event.HealthState
	// inFlight is read at each scrape, busySince for the page.
	inFlight     atomic.Int64
	inFlightList inFlightList
	busySince    atomic.Int64 // since when there is always a request in flight, in Unix nanoseconds
}

// New returns a Telemetry with a new metrics registry. The error names
// the option that cannot be used.
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

// scrub makes a text of unknown origin fit to be shown.
func (t *Telemetry) scrub(s string) string { return Scrub(t.redactor.Redact(s)) }

// RequestID returns the id by which the log knows the request that ctx is of;
// empty where it is of none.
func RequestID(ctx context.Context) string {
	if r, ok := ctx.Value(recordKey{}).(*record); ok {
		return r.id
	}
	return ""
}
