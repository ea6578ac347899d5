package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"mimecast-proxy/event"
)

// Snapshot returns what happened lately. It shares nothing with the Telemetry.
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
	t.recent.copyTo(&snap, seconds)
	snap.Running = t.inFlightList.running(now)
	slices.SortFunc(snap.Requests, func(a, b event.Request) int { return cmp.Compare(b.Seq, a.Seq) })
	snap.Points = points(seconds, now.Unix())
	snap.Faults, snap.LastMinute = count(seconds, now.Unix(), snap.Faults)
	snap.Latency = latency(snap.Requests)
	for i := range snap.Clients {
		snap.Clients[i].P95MS = slowest(snap.Requests, snap.Clients[i].Name)
	}
	return snap
}

// copyTo copies what is remembered. The sums are worked out by the caller,
// without the lock. Faults gets what is known of each kind, by index.
func (s *recent) copyTo(snap *event.Snapshot, seconds *[windowSeconds]second) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap.Total = s.total
	snap.Requests = append(append([]event.Request{}, s.requests.requests...), s.rejected.requests...)
	snap.Faults = make([]event.Fault, len(kinds))
	for i, k := range kinds {
		snap.Faults[i] = event.Fault{Code: k.Code, Component: k.Component, Rejected: k.Rejected(), LastAt: s.latest[i].at, LastError: s.latest[i].text}
	}
	snap.Denials = []event.Denial{}
	for _, d := range s.denials {
		if d.Count > 0 {
			snap.Denials = append(snap.Denials, d)
		}
	}
	snap.Clients = []event.Client{}
	for _, name := range slices.Sorted(maps.Keys(s.clients)) {
		snap.Clients = append(snap.Clients, s.clients[name].Client)
	}
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

// points sums the seconds of the window up by steps.
func points(seconds *[windowSeconds]second, now int64) []event.Point {
	first := (now/stepSeconds+1)*stepSeconds - windowSeconds
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
		switch kinds[f].Component {
		case event.ComponentClient:
			p.Tool += n
		case event.ComponentProxy:
			p.Proxy += n
		case event.ComponentCredentials:
			p.Token += n
		case event.ComponentMimecast:
			p.Mimecast += n
		}
	}
}

// round keeps three decimals.
func round(ms float64) float64 { return float64(int64(ms*1000+.5)) / 1000 }

// count fills in how often each fault was met, and drops those that were not.
// It also returns how many requests the last minute had.
func count(seconds *[windowSeconds]second, now int64, all []event.Fault) ([]event.Fault, uint32) {
	var requests uint32
	for i := range seconds {
		sec := &seconds[i]
		if sec.at <= now-windowSeconds || sec.at > now {
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

func latency(requests []event.Request) event.Latency {
	var proxyTime, upstream []float64
	for _, r := range requests {
		if r.UpstreamMS > 0 {
			proxyTime = append(proxyTime, r.OwnMS)
			upstream = append(upstream, r.UpstreamMS)
		}
	}
	slices.Sort(proxyTime)
	slices.Sort(upstream)
	return event.Latency{
		Count:    len(proxyTime),
		OwnP50MS: quantile(proxyTime, 50), OwnP95MS: quantile(proxyTime, 95),
		UpstreamP50MS: quantile(upstream, 50), UpstreamP95MS: quantile(upstream, 95),
	}
}

// slowest returns the time that 95 % of a client's requests took, in milliseconds.
func slowest(requests []event.Request, client string) float64 {
	var took []float64
	for _, r := range requests {
		if r.Client == client {
			took = append(took, r.DurationMS)
		}
	}
	slices.Sort(took)
	return quantile(took, 95)
}

// quantile returns the value that percent of the sorted values do not exceed.
func quantile(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
