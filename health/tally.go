package health

import (
	"cmp"
	"math"
	"slices"
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

	// quietTime is how long no request must have met a cause for it to have ended.
	quietTime = 2 * time.Second
	// endChance is the accepted probability of taking a cause that still exists for an
	// ended one, and newChance of taking an old one for a new one.
	endChance = 1.0 / 500
	newChance = 1.0 / 10_000

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
	clientLimit   // too_busy, because of the client
	mimecastLimit // too_busy, because of a quota
	kinds
	good kind = -1
)

func kindOf(o event.Outcome) kind {
	switch {
	case o.Code == event.ClientGone && o.Waited >= slowUpstream:
		return upstreamWasSlow // the client left because Mimecast was slow
	case o.Code == event.TooBusy && o.LimitOwner == event.ComponentClient:
		return clientLimit
	case o.Code == event.TooBusy && o.LimitOwner == event.ComponentMimecast:
		return mimecastLimit
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

// class groups kinds by what they say of the proxy.
type class int

const (
	failed class = iota // something other than the client is to blame
	slow                // the requests were carried out
	clients
	rejected // they do not show how other requests fare
	classes
)

// trait is what the judgment needs to know of a kind.
type trait struct {
	event.Condition
	class class
	// cleared says that any other response of the API ends it, not only a successful one.
	cleared bool
	// noToken says that the cause is the lack of a token.
	noToken, rejectedToken bool
}

// traits has those of each kind.
var traits = func() (all [kinds]trait) {
	for i, k := range event.Kinds() {
		all[i] = trait{Condition: event.Cause(k.Code).Condition(), class: classOf(k), noToken: k.Code == event.TokenUnavailable || k.Code == event.CredentialsRefused}
		all[i].rejectedToken = k.Code.TokenFault() && !all[i].noToken
		all[i].cleared = all[i].class == failed && k.Code != event.MimecastForbidden && k.Code != event.MimecastRateLimited
	}
	all[upstreamWasSlow] = trait{Condition: event.CauseMimecastSlow.Condition(), class: slow}
	all[clientLimit] = limitTrait(event.ComponentClient)
	all[mimecastLimit] = limitTrait(event.ComponentMimecast)
	all[proxyWasSlow] = trait{Condition: event.CauseProxySlow.Condition(), class: slow}
	return all
}()

func limitTrait(owner event.Component) trait {
	k := event.TooBusy.KindOf(owner)
	return trait{Condition: event.Condition{Cause: event.Cause(k.Code), Component: k.Component, Summary: k.Summary, Remedy: k.Remedy}, class: classOf(k)}
}

func classOf(k event.Kind) class {
	switch {
	case k.Rejected(), k.Code == event.ShuttingDown: // Facts.Draining says that it shuts down
		return rejected
	case k.Component == event.ComponentClient:
		return clients
	default:
		return failed
	}
}

// bucket counts the requests of a part of the window.
type bucket struct {
	number int // its time, in bucketTime since the tally's start
	// accepted are all but the rejected ones.
	accepted uint32
	bad      [kinds]uint32
	anyBad   bool // else bad need not be read
}

// fault is what is known of one kind. The zero value: no request met it for a long time.
//
// A fault has phases: it may be rare for an hour, and then an outage. first and last are
// what the tally had counted before its first request in the phase and after its last one.
type fault struct {
	lastAt      time.Time
	first, last evidence
	run         uint64 // requests in a row that failed, up to the last
	// ended says that it seems to have ended: its requests no longer count. If it comes
	// back soon, more evidence is needed the next time.
	ended bool
	// noToken says that the account had no usable token at the time.
	noToken bool
}

// evidence is what is known for and against a fault: requests that failed, and those
// that show that they need not.
type evidence struct{ bad, good uint64 }

// share returns the share of bad requests; 1 if there are none.
func (e evidence) share() float64 {
	if e.good == 0 {
		return 1
	}
	return float64(e.bad) / float64(e.bad+e.good)
}

func (e evidence) since(first evidence) evidence {
	return evidence{e.bad - first.bad, e.good - first.good}
}

// tally counts the requests of an account or a client.
type tally struct {
	start   time.Time       // counted from, so that no change of the clock matters
	buckets [buckets]bucket // a ring by number
	faults  [kinds]fault
	// last are the last accepted requests, a ring of which accepted is the next.
	last     [fewRequests]ended
	accepted uint64
	// bad has how many were bad, by class; fine how many were not, and responded how
	// many Mimecast's API responded to without a fault.
	bad             [classes]uint64
	fine, responded uint64
	respondedAt     time.Time
	// account is that of the last request.
	account string
	// noTokenSince is since when the account has had no usable token; zero: it has one.
	noTokenSince time.Time
}

// ended is a request that has ended. Its time is zero if it no longer counts.
type ended struct {
	at   time.Time
	kind kind
}

func (t *tally) record(o event.Outcome) {
	k := kindOf(o)
	t.account = cmp.Or(o.Account, account.Default)
	if k == good && o.Local {
		return // a response of the proxy does not show how Mimecast is
	}
	b := t.bucket(o.At)
	if k != good && traits[k].class == rejected {
		b.bad[k]++
		b.anyBad = true
		return
	}
	b.accepted++
	t.last[t.accepted%fewRequests] = ended{o.At, k}
	t.accepted++
	t.addEvidence(o, k)
	if k == good {
		return
	}
	b.bad[k]++
	b.anyBad = true
	t.bad[traits[k].class]++
	t.faults[k].add(o.At, t.evidence(k))
}

// addEvidence notes what shows that there is no fault.
func (t *tally) addEvidence(o event.Outcome, k kind) {
	if o.Answered.IsZero() {
		return
	}
	if o.Answered.After(t.respondedAt) {
		t.respondedAt = o.Answered
	}
	if k == good {
		t.fine++
	}
	if k == good || !traits[k].cleared {
		t.responded++
	}
}

func (t *tally) evidence(k kind) evidence {
	e := evidence{t.bad[traits[k].class], t.fine}
	if traits[k].cleared {
		e.good = t.responded
	}
	return e
}

// add notes a request that met the fault. now includes it.
func (f *fault) add(at time.Time, now evidence) {
	if f.run > 0 && now.good == f.last.good {
		f.run += now.bad - f.last.bad
	} else {
		f.run = 1
	}
	if f.lastAt.IsZero() || at.Sub(f.lastAt) > longWindow || f.isNew(now) {
		f.first, f.noToken = evidence{now.bad - f.run, now.good}, false
	}
	f.lastAt, f.last, f.ended = at, now, false
}

// isNew reports whether the run is so long that the fault as it was before would hardly
// have made it.
func (f *fault) isNew(now evidence) bool {
	before := evidence{now.bad - f.run, now.good}.since(f.first)
	return before.good > 0 && math.Pow(before.share(), float64(f.run)) < newChance
}

// active reports whether the fault may still exist.
func (f *fault) active() bool { return !f.lastAt.IsZero() && !f.ended }

// needed returns how many good requests in a row show that the fault has ended.
func (f *fault) needed() uint64 {
	share := f.last.since(f.first).share()
	if share > 1-endChance {
		return 1
	}
	return uint64(math.Ceil(math.Log(endChance) / math.Log(1-share)))
}

// number returns the number of the bucket of a time.
func (t *tally) number(at time.Time) int { return int(max(0, at.Sub(t.start)) / bucketTime) }

// bucket returns the one of a time, emptied if it is of a time long past.
func (t *tally) bucket(at time.Time) *bucket {
	n := t.number(at)
	b := &t.buckets[n%buckets]
	if b.number != n {
		*b = bucket{number: n}
	}
	return b
}

// forgetEnded forgets what has ended: of each kind that no request met lately, if so many
// were good since that the cause can hardly exist any more.
func (t *tally) forgetEnded(now time.Time, a Account) {
	for k := range t.faults {
		f := &t.faults[k]
		if !f.active() {
			continue
		}
		f.noToken = f.noToken || a.Error != "" && !a.Usable
		quiet := now.Sub(f.lastAt) >= quietTime && t.evidence(kind(k)).good-f.last.good >= f.needed()
		if quiet || f.endedByToken(kind(k), a) || now.Sub(f.lastAt) > longWindow {
			t.forget(kind(k))
		}
	}
}

// endedByToken reports whether the account got a token after the last request that failed
// for lack of one.
func (f *fault) endedByToken(k kind, a Account) bool {
	if !a.Usable || a.Name == "" {
		return false
	}
	// After a 401 a new token often gets 401 too, unless there was none before.
	return traits[k].noToken || traits[k].rejectedToken && f.noToken && a.Fetched.After(f.lastAt)
}

func (t *tally) forget(k kind) {
	t.faults[k].ended = true
	for i := range t.buckets { // they do not show how the proxy is now
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
	anyBad   bool
	// few says that they are all that came lately, and run is how many of those failed in
	// a row up to the last. recent says that they are only some of the window's.
	few, recent bool
	run         int
}

// newest returns the number of the last bucket with requests in the window: a pause does
// not change how the last ones went.
func newest(tallies []*tally, now time.Time) (number int) {
	for _, t := range tallies {
		from := t.number(now) - buckets
		for i := range t.buckets {
			if b := &t.buckets[i]; b.accepted > 0 && b.number > from {
				number = max(number, b.number)
			}
		}
	}
	return number
}

// countWithin counts the requests of the given time up to the last one in the window, up to
// the window.
func countWithin(tallies []*tally, now time.Time, within time.Duration) counts {
	c, last := counts{window: within}, newest(tallies, now)
	for _, t := range tallies {
		from := max(t.number(now)-buckets, last-int(within/bucketTime))
		for i := range t.buckets {
			b := &t.buckets[i]
			if b.number <= from {
				continue
			}
			c.accepted += int(b.accepted)
			if !b.anyBad {
				continue
			}
			c.anyBad = true
			for k, n := range b.bad {
				c.bad[k] += int(n)
			}
		}
	}
	return c
}

// countLast counts the last requests of the given time, for clients that call rarely.
func countLast(tallies []*tally, now time.Time, within time.Duration) counts {
	c := counts{window: within, few: true}
	var all []ended
	for _, t := range tallies {
		for _, one := range t.last {
			if !one.at.IsZero() && now.Sub(one.at) <= within {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b ended) int { return b.at.Compare(a.at) })
	all = all[:min(len(all), fewRequests)]
	c.accepted = len(all)
	failing := true
	for _, one := range all {
		failing = failing && one.kind != good && traits[one.kind].class == failed
		if failing {
			c.run++
		}
		if one.kind != good {
			c.anyBad = true
			c.bad[one.kind]++
		}
	}
	return c
}

// of returns how many requests are of a class, and the kind of most of them. It returns
// was if that is nearly as frequent, so that the cause does not flap.
func (c *counts) of(wanted class, was event.Cause) (n int, most kind) {
	most = good
	if !c.anyBad {
		return 0, most
	}
	usual := good
	for k, bad := range c.bad {
		if bad == 0 || traits[k].class != wanted {
			continue
		}
		n += bad
		if most == good || bad > c.bad[most] {
			most = kind(k)
		}
		if traits[k].Cause == was {
			usual = kind(k)
		}
	}
	if usual != good && c.bad[usual]*2 >= c.bad[most] {
		most = usual
	}
	return n, most
}
