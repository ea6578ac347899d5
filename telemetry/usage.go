package telemetry

import (
	"math"
	"time"

	"mimecast-proxy/event"
)

// usage counts the requests of one kind in the window, in bounded memory.
type usage struct {
	steps [windowSeconds / stepSeconds]usageStep // a ring, indexed by time
	took  durations                              // durations of requests that were not rejected
	last  time.Time
}

// usageStep counts the requests of one step of the window. at is the number of the step
// since 1970.
type usageStep struct{ at, requests, failed, rejected uint32 }

// step returns the counts for now. It clears counts from an earlier window.
func (u *usage) step(now time.Time) *usageStep {
	at := uint32(now.Unix() / stepSeconds) //nolint:gosec // until the year 2650
	step := &u.steps[at%uint32(len(u.steps))]
	if step.at != at {
		*step = usageStep{at: at}
	}
	return step
}

func (u *usage) add(now time.Time, o *outcome) {
	u.last = now
	step := u.step(now)
	step.requests++
	switch {
	case o.rejected():
		step.rejected++
		return
	case o.fault != "":
		step.failed++
	}
	u.took.add(now, milliseconds(o.took))
}

// sum returns the counts of the window.
func (u *usage) sum(now time.Time) event.Usage {
	all := event.Usage{P95MS: u.took.sum(now).quantile(95)}
	if !u.last.IsZero() {
		all.LastAt = u.last.UTC().Truncate(time.Millisecond)
	}
	last := uint32(now.Unix() / stepSeconds) //nolint:gosec // as above
	for _, step := range u.steps {
		if step.at > last || last-step.at >= uint32(len(u.steps)) {
			continue
		}
		all.Requests += step.requests
		all.Failed += step.failed
		all.Rejected += step.rejected
	}
	return all
}

const (
	// Each bucket's upper bound is √2 times its lower bound. The first bucket ends at
	// 11 µs, and the last begins at 99 minutes.
	buckets     = 60
	firstBucket = -6 // binary exponent of the first bucket, in milliseconds, as math.Frexp returns it
)

// durations is a histogram of milliseconds over the window, one part per minute.
type durations struct{ minutes [windowSeconds / 60]minute }

// minute is one minute's part of a histogram. at is the number of the minute since
// 1970.
type minute struct {
	at          int64
	least, most float64
	counts      [buckets]uint32
}

func (d *durations) add(now time.Time, ms float64) {
	at := now.Unix() / 60
	m := &d.minutes[at%int64(len(d.minutes))]
	if m.at != at {
		*m = minute{at: at, least: ms, most: ms}
	}
	m.least, m.most = min(m.least, ms), max(m.most, ms)
	m.counts[bucketOf(ms)]++
}

func bucketOf(ms float64) int {
	if ms <= 0 {
		return 0
	}
	fraction, exponent := math.Frexp(ms) // 0.5 <= fraction < 1
	i := 2 * (exponent - firstBucket)
	if fraction >= math.Sqrt2/2 {
		i++
	}
	return min(max(i, 0), buckets-1)
}

// sum returns the histogram of the whole window.
func (d *durations) sum(now time.Time) (all minute) {
	all.least = math.Inf(1)
	last := now.Unix() / 60
	for i := range d.minutes {
		m := &d.minutes[i]
		if m.at > last || last-m.at >= int64(len(d.minutes)) {
			continue
		}
		all.least, all.most = min(all.least, m.least), max(all.most, m.most)
		for b, n := range m.counts {
			all.counts[b] += n
		}
	}
	return all
}

func (m minute) count() (n int) {
	for _, c := range m.counts {
		n += int(c)
	}
	return n
}

// quantile estimates the value that percent of the values do not exceed. It returns 0
// if there are no values.
func (m minute) quantile(percent int) float64 {
	total := m.count()
	rank := (total*percent + 99) / 100
	for i, n := range m.counts {
		if rank > int(n) {
			rank -= int(n)
			continue
		}
		if n == 0 {
			continue
		}
		upper := math.Exp2(firstBucket + float64(i-1)/2)
		lower := upper / math.Sqrt2
		return round(min(max(lower+(upper-lower)*float64(rank)/float64(n), m.least), m.most))
	}
	return 0
}
