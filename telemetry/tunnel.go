package telemetry

import (
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// Tunnel is what became of a client's use of the forward proxy.
type Tunnel struct {
	// ID is from [Telemetry.NewID].
	ID string
	// Peer is the client's address; Host and Port are what it wanted to reach, and may
	// be empty and 0.
	Peer, Host string
	Port       int
	// Intercepted reports whether the host is Mimecast's.
	Intercepted bool
	// Outcome is how it ended, and Err why, if it failed.
	Outcome event.InterceptOutcome
	Err     error
	// In counts the bytes from the client, Out those to it.
	In, Out int64
	// Duration is the time from its beginning to its end.
	Duration time.Duration
}

// carried are the outcomes of tunnels that carried something.
var carried = []event.InterceptOutcome{event.InterceptTerminated, event.InterceptTunneled, event.InterceptIdle, event.InterceptShutdown}

// tunnelLog bounds the lines of tunnels that were not opened: strangers can cause any
// number of them.
type tunnelLog struct {
	mu   sync.Mutex // guards last
	last map[event.InterceptOutcome]time.Time
}

// logs reports whether a tunnel with this outcome gets a line: each that carried something
// does, and of the others one a second for each outcome.
func (l *tunnelLog) logs(o event.InterceptOutcome, now time.Time) bool {
	if slices.Contains(carried, o) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.last[o]) < time.Second {
		return false
	}
	if l.last == nil {
		l.last = map[event.InterceptOutcome]time.Time{}
	}
	l.last[o] = now
	return true
}

// NewID returns an identifier for a log line and an error response.
func (t *Telemetry) NewID() string { return newRequestID() }

// TunnelDone logs and counts a tunnel that has ended.
func (t *Telemetry) TunnelDone(done Tunnel) {
	t.metrics.tunnels.WithLabelValues(string(done.Outcome)).Inc()
	if !t.tunnels.logs(done.Outcome, time.Now()) {
		return
	}
	level := zerolog.InfoLevel
	if done.Outcome == event.InterceptHandshakeFailed || done.Outcome == event.InterceptFailed {
		level = zerolog.WarnLevel // the client does not trust the CA, or it is our fault
	}
	e := t.log.WithLevel(level)
	if e == nil {
		return
	}
	e.Str(timeField, formatTime(time.Now().UTC())).Str(t.msgField, "tunnel").
		Str("request_id", done.ID).Str("peer", peerHost(done.Peer)).
		Str("host", t.scrub(done.Host)).Int("port", done.Port).Bool("intercepted", done.Intercepted).
		Str("outcome", string(done.Outcome)).Int64("bytes_in", done.In).Int64("bytes_out", done.Out).
		Float64("duration_ms", milliseconds(done.Duration))
	if done.Err != nil {
		e.Str("error", t.scrub(done.Err.Error()))
	}
	e.Send()
}
