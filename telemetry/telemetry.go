// Package telemetry tells what happened: one log line a request, metrics, and
// the recent past for the status page. It is the only home of zerolog and
// prometheus.
//
// The other packages report through optional funcs; the methods of [Telemetry]
// have their signatures. No secret, token, query, header value or body gets
// into anything that this package writes: what it is given for a person to
// read is scrubbed, and labels come from closed sets.
package telemetry

import (
	"cmp"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Options say where the log goes and what this build is.
type Options struct {
	// Output gets the log; nil discards it.
	Output io.Writer
	// Level is debug, info, warn or error; empty means info.
	Level string
	// Format is json, console, or auto, which is console on a terminal and
	// JSON else; empty means auto.
	Format string
	// Terminal says whether Output is one.
	Terminal bool
	// Version and Revision are told by the metric build_info.
	Version, Revision string
	// Routes are the route patterns that requests are counted by, presets
	// expanded. None means that nothing is counted by route.
	Routes []string
	// MaxRequests and ReplayMemory, in bytes, are the bounds of what
	// requests_in_flight and replay_buffer_bytes measure, told as metrics so
	// that an alert can name a share. 0 tells none.
	MaxRequests, ReplayMemory int64
}

// Telemetry logs, counts and remembers.
type Telemetry struct {
	log     zerolog.Logger
	metrics *metrics
	recent  recent
	started time.Time
	version string
	// inFlight and expiry are read at each scrape, busy for the page.
	inFlight atomic.Int64
	busy     atomic.Int64 // since when there is always a request in flight, in Unix nanoseconds
	expiry   atomic.Int64 // of the token held, in Unix nanoseconds; 0 before the first
}

// New returns a Telemetry with a metrics registry of its own. The error names
// the option that cannot be used.
func New(o Options) (*Telemetry, error) {
	log, err := newLog(o)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{log: log, started: time.Now().Round(0), version: cmp.Or(o.Version, "unknown")}
	t.metrics = newMetrics(o, t)
	return t, nil
}
