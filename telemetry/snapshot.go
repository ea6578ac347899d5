package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Snapshot is what happened lately. Its JSON is stable.
type Snapshot struct {
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started"`
	Version  string    `json:"version"`
	InFlight int64     `json:"in_flight"`
	// BusySince is since when there has been a request in flight at any time;
	// zero while there is none.
	BusySince time.Time `json:"busy_since,omitzero"`
	// Total counts the requests since the start.
	Total uint64 `json:"total"`
	// Points are the last WindowSeconds in steps, oldest first. The last one
	// is not over yet.
	WindowSeconds int     `json:"window_seconds"`
	StepSeconds   int     `json:"step_seconds"`
	Points        []Point `json:"points"`
	Latency       Latency `json:"latency"`
	// Requests are the last ones, newest first: up to 200, and up to 50 more
	// that were rejected.
	Requests []Request `json:"requests"`
	// Faults are those of the window, the most frequent of the last minute
	// first; LastMinute is how many requests there were in that.
	Faults     []Fault  `json:"faults"`
	LastMinute uint32   `json:"last_minute"`
	Denials    []Denial `json:"denials"`
	// Retries counts how 401 answers ended, since the start.
	Retries map[string]uint64 `json:"retries"`
	// RateLimit is nil before Mimecast names one.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
	// TokenEvents are the last token requests, newest first; TokenFailure is
	// the last that failed, however long ago; Renewing says that one is under
	// way.
	TokenEvents  []TokenEvent `json:"token_events"`
	TokenFailure *TokenEvent  `json:"token_failure,omitempty"`
	Renewing     bool         `json:"renewing"`
}

// Latency says how the time until an answer begins is shared, over the
// remembered requests that Mimecast answered.
type Latency struct {
	Count         int     `json:"count"`
	OwnP50MS      float64 `json:"own_p50_ms"`
	OwnP95MS      float64 `json:"own_p95_ms"`
	UpstreamP50MS float64 `json:"upstream_p50_ms"`
	UpstreamP95MS float64 `json:"upstream_p95_ms"`
}

// Snapshot returns what happened lately. It shares nothing with the Telemetry.
func (t *Telemetry) Snapshot() Snapshot {
	now := time.Now().UTC().Truncate(time.Millisecond)
	snap := Snapshot{
		Now: now, Started: t.started.UTC().Truncate(time.Millisecond), Version: t.version, InFlight: t.inFlight.Load(),
		WindowSeconds: window, StepSeconds: step,
	}
	if snap.InFlight > 0 {
		snap.BusySince = time.Unix(0, t.busy.Load()).UTC().Truncate(time.Millisecond)
	}
	seconds := new([window]second)
	t.recent.copyTo(&snap, seconds)
	slices.SortFunc(snap.Requests, func(a, b Request) int { return cmp.Compare(b.Seq, a.Seq) })
	snap.Points = points(seconds, now.Unix())
	snap.Faults, snap.LastMinute = count(seconds, now.Unix(), snap.Faults)
	snap.Latency = latency(snap.Requests)
	return snap
}

// copyTo copies what is remembered. The sums are worked out by the caller,
// without the lock. Faults gets what is known of each kind, by index.
func (s *recent) copyTo(snap *Snapshot, seconds *[window]second) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap.Total = s.total
	snap.Requests = append(append([]Request{}, s.requests.requests...), s.rejected.requests...)
	snap.Faults = make([]Fault, len(faults))
	for i, f := range faults {
		snap.Faults[i] = Fault{Code: f.code, Culprit: f.culprit, Rejected: f.denial && f.culprit == Tool, LastAt: s.lasts[i].at, LastError: s.lasts[i].text}
	}
	snap.Denials = []Denial{}
	for _, d := range s.denials {
		if d.Count > 0 {
			snap.Denials = append(snap.Denials, d)
		}
	}
	snap.Retries = map[string]uint64{}
	maps.Copy(snap.Retries, s.retries)
	if !s.quotaAt.IsZero() {
		snap.RateLimit = s.quota.shown(s.quotaAt.UTC().Truncate(time.Millisecond))
	}
	snap.TokenEvents = append([]TokenEvent{}, s.events...)
	slices.Reverse(snap.TokenEvents)
	snap.TokenFailure, snap.Renewing = s.failure, s.renewing
	*seconds = s.seconds
}

// points sums the seconds of the window up by steps.
func points(seconds *[window]second, now int64) []Point {
	first := (now/step+1)*step - window
	out := make([]Point, window/step)
	answered := make([]uint32, len(out))
	for i := range out {
		out[i].T = first + int64(i)*step
	}
	for i := range seconds {
		sec := &seconds[i]
		if sec.at < first || sec.at > now {
			continue
		}
		n := (sec.at - first) / step
		answered[n] += sec.answered
		out[n].add(sec)
	}
	for i := range out {
		n := float64(max(answered[i], 1))
		out[i].OwnMS = round(out[i].OwnMS / n)
		out[i].UpstreamMS = round(out[i].UpstreamMS / n)
	}
	return out
}

func (p *Point) add(sec *second) {
	p.Requests += sec.requests
	p.OwnMS += milliseconds(sec.own)
	p.UpstreamMS += milliseconds(sec.upstream)
	for f, n := range sec.faults {
		switch faults[f].culprit {
		case Tool:
			p.Tool += n
		case Proxy:
			p.Proxy += n
		case Token:
			p.Token += n
		case Mimecast:
			p.Mimecast += n
		}
	}
}

// round keeps three decimals.
func round(ms float64) float64 { return float64(int64(ms*1000+.5)) / 1000 }

// count fills in how often each fault was met, and drops those that were not.
// It also returns how many requests the last minute had.
func count(seconds *[window]second, now int64, all []Fault) ([]Fault, uint32) {
	var requests uint32
	for i := range seconds {
		sec := &seconds[i]
		if sec.at <= now-window || sec.at > now {
			continue
		}
		lately := sec.at > now-60
		if lately {
			requests += sec.requests
		}
		for f, n := range sec.faults {
			all[f].Window += n
			if lately {
				all[f].LastMinute += n
			}
		}
	}
	all[faultNone] = Fault{}
	all = slices.DeleteFunc(all, func(f Fault) bool { return f.Window == 0 })
	slices.SortStableFunc(all, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(b.LastMinute, a.LastMinute), cmp.Compare(b.Window, a.Window))
	})
	return all, requests
}

func latency(requests []Request) Latency {
	var own, upstream []float64
	for _, r := range requests {
		if r.UpstreamMS > 0 {
			own = append(own, r.OwnMS)
			upstream = append(upstream, r.UpstreamMS)
		}
	}
	slices.Sort(own)
	slices.Sort(upstream)
	return Latency{
		Count:    len(own),
		OwnP50MS: quantile(own, 50), OwnP95MS: quantile(own, 95),
		UpstreamP50MS: quantile(upstream, 50), UpstreamP95MS: quantile(upstream, 95),
	}
}

// quantile returns the value that percent of the sorted values do not exceed.
func quantile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
