package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"mimecast-proxy/event"
)

// Snapshot returns the recent past for the status page. It shares no memory with t.
func (t *Telemetry) Snapshot() event.Snapshot {
	now := time.Now().UTC().Truncate(time.Millisecond)
	snap := event.Snapshot{
		Now: now, Started: t.started.UTC().Truncate(time.Millisecond), Version: t.version, InFlight: t.inFlight.Load(),
		WindowSeconds: windowSeconds, StepSeconds: stepSeconds,
	}
	if snap.InFlight > 0 {
		snap.BusySince = time.Unix(0, t.busySince.Load()).UTC().Truncate(time.Millisecond)
	}
	snap.Quotas = []event.Quota{}
	if read := t.metrics.quota.read; read != nil {
		snap.Quotas = read()
	}
	seconds := new([windowSeconds]second)
	t.recent.copyTo(&snap, seconds, now)
	snap.Running = t.inFlightList.running(now)
	newestFirst := func(a, b event.Request) int { return cmp.Compare(b.Seq, a.Seq) }
	slices.SortFunc(snap.Requests, newestFirst)
	slices.SortFunc(snap.Errors, newestFirst)
	snap.Points = points(seconds, now.Unix())
	snap.Faults, snap.LastMinute = count(seconds, now.Unix(), snap.Faults)
	return snap
}

// copyTo copies the recent past to snap and seconds. The caller computes the sums
// without the lock. snap.Faults gets one entry per row, without counts.
func (s *recent) copyTo(snap *event.Snapshot, seconds *[windowSeconds]second, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap.Total = s.total
	snap.Requests = append(append([]event.Request{}, s.requests.requests...), s.rejected.requests...)
	snap.Errors = append(append([]event.Request{}, s.failed.requests...), s.rejected.requests...)
	snap.Faults = make([]event.Fault, faultRows)
	for i, k := range rowKinds {
		snap.Faults[i] = event.Fault{Code: k.Code, Component: k.Component, Rejected: k.Rejected(), LastAt: s.latest[i].at, LastError: s.latest[i].text}
	}
	s.copyUsage(snap, now)
	snap.Retries = map[event.RetryOutcome]uint64{}
	maps.Copy(snap.Retries, s.retries)
	if !s.quotaAt.IsZero() {
		snap.RateLimit = rateLimit(s.quota, s.quotaAt.UTC().Truncate(time.Millisecond))
	}
	snap.TokenEvents = append([]event.TokenEvent{}, s.tokenEvents...)
	slices.Reverse(snap.TokenEvents)
	snap.TokenFailure, snap.Renewing = s.lastFailure, len(s.renewing) > 0
	*seconds = s.seconds
}

// copyUsage copies the counts by client, route and reason. The caller holds s.mu.
func (s *recent) copyUsage(snap *event.Snapshot, now time.Time) {
	snap.Denials = []event.Denial{}
	for _, d := range s.denials {
		if d != nil {
			counted := d.sum(now)
			d.Window, d.WindowPassed = counted.Rejected, counted.Failed
			snap.Denials = append(snap.Denials, d.Denial)
		}
	}
	snap.Clients = []event.Client{}
	for _, name := range slices.Sorted(maps.Keys(s.clients)) {
		c := s.clients[name]
		snap.Clients = append(snap.Clients, event.Client{Name: name, Account: c.account, Usage: c.sum(now)})
	}
	snap.Routes = []event.Route{}
	for _, pattern := range append(slices.Clone(s.patterns), other) {
		u := s.routes[pattern]
		switch {
		case u != nil:
			snap.Routes = append(snap.Routes, event.Route{Pattern: pattern, Usage: u.sum(now)})
		case pattern != other:
			snap.Routes = append(snap.Routes, event.Route{Pattern: pattern})
		}
	}
	own, upstream := s.own.sum(now), s.upstream.sum(now)
	snap.Latency = event.Latency{
		Count:    own.count(),
		OwnP50MS: own.quantile(50), OwnP95MS: own.quantile(95),
		UpstreamP50MS: upstream.quantile(50), UpstreamP95MS: upstream.quantile(95),
	}
}

// windowStart returns the first second of the window, rounded to a step.
func windowStart(now int64) int64 { return (now/stepSeconds+1)*stepSeconds - windowSeconds }

// points sums the seconds of the window by step.
func points(seconds *[windowSeconds]second, now int64) []event.Point {
	first := windowStart(now)
	out := make([]event.Point, windowSeconds/stepSeconds)
	responded := make([]uint32, len(out))
	for i := range out {
		out[i].T = first + int64(i)*stepSeconds
	}
	for i := range seconds {
		sec := &seconds[i]
		if sec.at < first || sec.at > now {
			continue
		}
		n := (sec.at - first) / stepSeconds
		responded[n] += sec.responded
		addSecond(&out[n], sec)
	}
	for i := range out {
		n := float64(max(responded[i], 1))
		out[i].OwnMS = round(out[i].OwnMS / n)
		out[i].UpstreamMS = round(out[i].UpstreamMS / n)
	}
	return out
}

func addSecond(p *event.Point, sec *second) {
	p.Requests += sec.requests
	p.OwnMS += milliseconds(sec.proxyTime)
	p.UpstreamMS += milliseconds(sec.upstream)
	for f, n := range sec.faults {
		switch rowKinds[f].Component {
		case event.ComponentClient:
			p.Client += n
		case event.ComponentProxy:
			p.Proxy += n
		case event.ComponentCredentials:
			p.Credentials += n
		case event.ComponentMimecast:
			p.Mimecast += n
		}
	}
}

// round rounds to three decimals.
func round(ms float64) float64 { return float64(int64(ms*1000+.5)) / 1000 }

// count sets how often each fault happened, and removes those that did not. It also
// returns the number of requests in the last minute.
func count(seconds *[windowSeconds]second, now int64, all []event.Fault) ([]event.Fault, uint32) {
	var requests uint32
	for i := range seconds {
		sec := &seconds[i]
		if sec.at < windowStart(now) || sec.at > now {
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
	all = slices.DeleteFunc(all, func(f event.Fault) bool { return f.Window == 0 })
	slices.SortStableFunc(all, func(a, b event.Fault) int {
		return cmp.Or(cmp.Compare(b.LastMinute, a.LastMinute), cmp.Compare(b.Window, a.Window))
	})
	return all, requests
}
