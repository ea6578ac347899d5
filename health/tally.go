package health

import (
	"cmp"
	"math"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
)

const (
	// window is the time in which requests are counted, in buckets of bucketTime.
	window     = time.Minute
	bucketTime = 5 * time.Second
	buckets    = int(window / bucketTime)
	// recently is a shorter time, in which an outage shows before it fills the window.
	recently = 2 * bucketTime

	// A client that calls rarely has fewRequests in the window or fewer. It is judged by
	// its last requests, up to fewRequests within longWindow.
	fewRequests = 10
	longWindow  = 15 * time.Minute

	// A cause that no request met for quietTime may have ended.
	quietTime = 2 * time.Second
	// chance is how likely a cause that still exists may be taken for one that ended.
	chance = 0.01

	// From these times on a request was slow.
	slowUpstream = 5 * time.Second
	slowProxy    = 100 * time.Millisecond
)

// kind is a way in which a request can be bad: the index of its code, or one of those
// below.
type kind int

const (
	upstreamWasSlow kind = kind(event.Count) + iota
	proxyWasSlow
	kinds
	good kind = -1
)

func kindOf(o event.Outcome) kind {
	switch {
	case o.Code != "":
		return kind(o.Code.Index())
	case o.Upstream >= slowUpstream:
		return upstreamWasSlow
	case o.Own >= slowProxy && o.Own > o.Upstream/10:
		return proxyWasSlow
	default:
		return good
	}
}

// causes has the cause of each kind.
var causes = func() (all [kinds]event.Cause) {
	for i, k := range event.Kinds() {
		all[i] = event.Cause(k.Code)
	}
	all[upstreamWasSlow], all[proxyWasSlow] = event.CauseMimecastSlow, event.CauseProxySlow
	return all
}()

// conditions has what each kind means, and rejections which of them are rejected
// requests.
var conditions, rejections = func() (all [kinds]event.Condition, rejected [kinds]bool) {
	for i, cause := range causes {
		all[i] = cause.Condition()
		rejected[i] = i < event.Count && event.Code(cause).Kind().Rejected()
	}
	return all, rejected
}()

// bucket counts the requests of a part of the window.
type bucket struct {
	number int64 // its time, in bucketTime since 1970
	// accepted are all but the rejected ones.
	accepted uint32
	bad      [kinds]uint32
}

// fault is what is known of one kind while it lasts. The zero value: it does not.
type fault struct {
	count       uint64
	first, last uint64 // the numbers of the accepted requests that met it first and last
	good        uint64 // how many were good before the last one
	lastAt      time.Time
}

// tally counts the requests of an account or a client.
type tally struct {
	buckets [buckets]bucket // a ring by number
	faults  [kinds]fault
	// last are the last accepted requests, a ring of which accepted is the next.
	last [fewRequests]struct {
		at   time.Time
		kind kind
	}
	accepted, good uint64
	// account is that of the last request.
	account string
}

func (t *tally) record(o event.Outcome) {
	k := kindOf(o)
	b := t.bucket(o.At)
	t.account = cmp.Or(o.Account, account.Default)
	if k != good && rejections[k] {
		b.bad[k]++
		t.faults[k].lastAt = o.At
		return
	}
	b.accepted++
	place := &t.last[t.accepted%fewRequests]
	place.at, place.kind = o.At, k
	t.accepted++
	if k == good {
		t.good++
		return
	}
	b.bad[k]++
	f := &t.faults[k]
	if f.count == 0 {
		f.first = t.accepted
	}
	f.count++
	f.last, f.good, f.lastAt = t.accepted, t.good, o.At
}

func numberOf(at time.Time) int64 { return at.UnixNano() / int64(bucketTime) }

// bucket returns the one of a time, emptied if it is of a time long past.
func (t *tally) bucket(at time.Time) *bucket {
	n := numberOf(at)
	b := &t.buckets[n%int64(buckets)]
	if b.number != n {
		*b = bucket{number: n}
	}
	return b
}

// forgetCured forgets what has ended: of each kind that no request met lately, if so many
// were good since that the cause can hardly exist any more.
func (t *tally) forgetCured(now time.Time, tokenIsNewer func(failed time.Time) bool) {
	for k := range t.faults {
		f := &t.faults[k]
		if f.count == 0 {
			continue
		}
		quiet := now.Sub(f.lastAt) >= quietTime && t.good-f.good >= f.needed()
		newToken := k < event.Count && event.Code(causes[k]).TokenFault() && tokenIsNewer(f.lastAt)
		if quiet || newToken || now.Sub(f.lastAt) > longWindow {
			t.forget(kind(k))
		}
	}
}

// needed returns how many good requests in a row show that the fault has ended.
func (f *fault) needed() uint64 {
	share := float64(f.count) / float64(f.last-f.first+1)
	if share > 1-chance {
		return 1
	}
	return uint64(math.Ceil(math.Log(chance) / math.Log(1-share)))
}

func (t *tally) forget(k kind) {
	t.faults[k] = fault{}
	for i := range t.buckets { // they say nothing of how the proxy is now
		t.buckets[i].accepted -= t.buckets[i].bad[k]
		t.buckets[i].bad[k] = 0
	}
	for i := range t.last {
		if t.last[i].kind == k {
			t.last[i].at = time.Time{}
		}
	}
}

// counts are the requests of some time.
type counts struct {
	window   time.Duration
	accepted int
	bad      [kinds]int
}

// add adds the requests of the given time up to now.
func (c *counts) add(t *tally, now time.Time, within time.Duration) {
	from := numberOf(now) - int64(within/bucketTime)
	for i := range t.buckets {
		b := &t.buckets[i]
		if b.number <= from {
			continue
		}
		c.accepted += int(b.accepted)
		for k, n := range b.bad {
			c.bad[k] += int(n)
		}
	}
}

// addLast adds the last requests, for a client that calls rarely.
func (c *counts) addLast(t *tally, now time.Time) {
	for _, one := range t.last {
		if one.at.IsZero() || now.Sub(one.at) > longWindow {
			continue
		}
		c.accepted++
		if one.kind != good {
			c.bad[one.kind]++
		}
	}
}

// rejected returns how many were rejected, and the kind of most of them.
func (c *counts) rejected() (n int, most kind) {
	most = good
	for k, bad := range c.bad {
		if !rejections[k] || bad == 0 {
			continue
		}
		n += bad
		if most == good || bad > c.bad[most] {
			most = kind(k)
		}
	}
	return n, most
}

// failed returns how many failed for the kinds that of chooses, and the kind of most.
func (c *counts) failed(of func(kind) bool) (n int, most kind) {
	most = good
	for k, bad := range c.bad {
		if bad == 0 || rejections[k] || !of(kind(k)) {
			continue
		}
		n += bad
		if most == good || bad > c.bad[most] {
			most = kind(k)
		}
	}
	return n, most
}
