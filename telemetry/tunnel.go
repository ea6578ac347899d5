package telemetry

import (
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// Tunnel is one use of the forward proxy by a client.
type Tunnel struct {
	// ID comes from [Telemetry.NewID].
	ID string
	// Peer is the client's address. Host and Port are the requested target; they may be
	// empty and 0.
	Peer, Host string
	Port       int
	// Intercepted reports whether the target is a Mimecast host.
	Intercepted bool
	// Outcome is how the tunnel ended. Err is the cause of a failure; it may be nil.
	Outcome event.InterceptOutcome
	Err     error
	// In counts bytes from the client, and Out bytes to the client.
	In, Out int64
	// Duration is the time from the tunnel's beginning to its end.
	Duration time.Duration
}

// carried are the outcomes of tunnels that were opened.
var carried = []event.InterceptOutcome{event.InterceptTerminated, event.InterceptTunneled, event.InterceptIdle, event.InterceptShutdown}

// tunnelLog limits the log lines of tunnels that were not opened, since anyone can
// cause any number of them.
type tunnelLog struct {
	mu   sync.Mutex // guards last
	last map[event.InterceptOutcome]time.Time
}

// logs reports whether to log a tunnel with this outcome. Opened tunnels are always
// logged, others once a second per outcome.
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

// NewID returns a new ID for a log line and its error response.
func (t *Telemetry) NewID() string { return newRequestID() }

// TunnelDone logs and counts a tunnel that has ended.
func (t *Telemetry) TunnelDone(done Tunnel) {
	t.metrics.tunnels.WithLabelValues(string(done.Outcome)).Inc()
	if !t.tunnels.logs(done.Outcome, time.Now()) {
		return
	}
	level := zerolog.InfoLevel
	if done.Outcome == event.InterceptHandshakeFailed || done.Outcome == event.InterceptFailed {
		level = zerolog.WarnLevel // the client does not trust the CA, or the proxy failed
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
