package quota

import (
	"math"
	"slices"
	"time"

	"mimecast-proxy/mimecast"
)

const (
	// burst is the share of a window's calls that may go as soon as they come. The rest
	// is spread over the window.
	burst = 0.2
	// reserveShare of a window's calls, but at least one call, is kept to its end for
	// clients that have not called yet.
	reserveShare = 0.01
	// margin is how long before a window's end what is left is used up.
	margin = 50 * time.Millisecond
	// maxReset bounds the resets that are used at all. maxWindow is the longest window that
	// Mimecast documents. A longer one is checked by one call each probeEvery.
	maxReset   = 24 * time.Hour
	maxWindow  = time.Hour
	probeEvery = time.Minute
)

// window is what is known of the current window of a quota. The zero value is unknown.
//
// Mimecast documents fixed windows. One that slides looks like many short ones. All times
// come from time.Now, and so a step of the clock changes nothing.
type window struct {
	limit, remaining int64
	// counted is the number of the call whose response stated remaining, sent that of
	// the last call: those between are not in remaining yet.
	counted, sent uint64
	asOf          time.Time // when remaining was stated
	// flights are calls under way, and flying is how many there are. countedAt is when the
	// counted one was sent.
	flights   []flight
	flying    int
	countedAt time.Time
	// unsent are numbers after the counted one whose calls were not sent, and void is how
	// many of those up to it were not, of this window.
	unsent []uint64
	void   int64
	// The window ends between earliest and latest: a response that says when was on its
	// way for a time that is not known.
	earliest, latest time.Time
	// trip is how long the slowest of the last calls took.
	trip time.Duration
	// began is when the window was first seen, room what was left then, and first the
	// number of the last call before.
	began time.Time
	room  int64
	first uint64
	// confirmed says that a response was of this window. Otherwise it is assumed to
	// follow the last one, with the same limit and length.
	confirmed bool
	length    time.Duration
	// slides says that a reset did not bring the whole limit back, but a call at least.
	slides bool
	others others
}

// flight is a call under way.
type flight struct {
	call uint64
	sent time.Time
}

const (
	// maxFlights bounds the calls under way that are remembered, and maxUnsent those that
	// were not sent.
	maxFlights = 64
	maxUnsent  = 1024
	// apart is how much later another call is sent that is certainly counted later.
	apart = 100 * time.Millisecond
)

// send counts a call that goes now, and returns its number.
func (w *window) send(now time.Time) uint64 {
	w.sent++
	w.flying++
	if len(w.flights) < maxFlights {
		w.flights = append(w.flights, flight{w.sent, now})
	}
	return w.sent
}

// land ends a call.
func (w *window) land(call uint64) {
	if call == 0 { // it was not counted
		return
	}
	w.flying--
	w.flights = slices.DeleteFunc(w.flights, func(f flight) bool { return f.call == call })
}

// takeBack ends a call that was not sent, and reports whether it was of this window.
func (w *window) takeBack(call uint64) bool {
	w.land(call)
	switch {
	case call <= w.first:
		return false
	case call <= w.counted:
		w.void++
	case len(w.unsent) < maxUnsent:
		w.unsent = append(w.unsent, call)
		w.forgetUnsent()
	}
	return true
}

// forgetUnsent gives the numbers of the last calls to others, if they were not sent: an
// outage may be long.
func (w *window) forgetUnsent() {
	for i := slices.Index(w.unsent, w.sent); i >= 0; i = slices.Index(w.unsent, w.sent) {
		w.unsent = slices.Delete(w.unsent, i, i+1)
		w.sent--
	}
}

// pending is how many calls were sent after the counted one.
func (w *window) pending() int64 {
	return int64(w.sent-w.counted) - int64(len(w.unsent)) //nolint:gosec // counters of calls
}

// lost is how many of them failed, so that Mimecast may or may not have counted them.
func (w *window) lost() int64 { return w.pending() - int64(w.flying) }

// advanceTo notes that a call's response counts all up to it, and returns how many of
// those after the counted one were sent.
func (w *window) advanceTo(call uint64) (own int64) {
	own = int64(call - w.counted) //nolint:gosec // counters of calls
	for _, n := range w.unsent {
		if n > w.counted && n <= call {
			own--
			w.void++
		}
	}
	w.unsent = slices.DeleteFunc(w.unsent, func(n uint64) bool { return n <= call })
	w.counted = call
	return own
}

// others is what others use of the quota, as the proxy's own responses show: sums over the
// last few calls, in which each call counts four fifths of the next.
type others struct {
	calls, own float64
	time       time.Duration
}

// add notes a number of calls that were not the proxy's own.
func (o *others) add(calls, own int64, d time.Duration) {
	fade := math.Pow(0.8, float64(own))
	o.calls = o.calls*fade + float64(max(calls, 0))
	o.own = o.own*fade + float64(own)
	o.time = time.Duration(float64(o.time)*fade) + max(d, 0)
}

// share is the proxy's own share of the calls.
func (o *others) share() float64 {
	if o.calls <= o.own/20 { // a call that failed
		return 1
	}
	return o.own / (o.own + o.calls)
}

// in estimates how many calls others make in a time.
func (o *others) in(d time.Duration) float64 {
	if o.time <= 0 {
		return 0
	}
	return o.calls * float64(d) / float64(o.time)
}

// known reports whether calls can be paced.
func (w *window) known() bool { return w.limit > 0 && !w.latest.IsZero() }

// isTooLong reports whether the end is farther away than any that Mimecast documents.
func (w *window) isTooLong(now time.Time) bool { return w.latest.Sub(now) > maxWindow }

// advance goes to the next window if this one has ended, and reports whether it did.
func (w *window) advance(now time.Time) bool {
	if !w.known() || now.Before(w.latest) {
		return false
	}
	end := w.latest.Add(w.length)
	if !w.confirmed || !now.Before(end) { // the state is unknown again
		w.earliest, w.latest = time.Time{}, time.Time{}
		w.confirmed = false
		return true
	}
	w.room = w.limit
	if w.slides {
		w.room = min(w.remaining+1, w.limit)
	}
	w.began, w.asOf, w.first = w.latest, w.latest, w.sent
	w.remaining, w.counted, w.unsent, w.void = w.room, w.sent, nil, 0
	w.earliest, w.latest, w.confirmed = end, end, false
	return true
}

// response is the quota that a response states, and the number of its call.
type response struct {
	quota          mimecast.Quota
	call           uint64
	sent, received time.Time
}

// resets returns the earliest and the latest end of the window.
func (r response) resets() (earliest, latest time.Time) {
	reset := time.Duration(r.quota.ResetMS) * time.Millisecond
	return r.sent.Add(reset), r.received.Add(reset)
}

// usable reports whether the response says all that pacing needs, in believable numbers.
func (r response) usable() bool {
	q := r.quota
	return q.Limit > 0 && q.Limit < math.MaxInt32 && q.Remaining >= 0 && q.ResetMS > 0 && q.ResetMS <= maxReset.Milliseconds()
}

// observe updates the window from a response. It reports whether an unexpected new window
// began.
func (w *window) observe(r response) (began bool) {
	if !r.usable() {
		return false
	}
	w.trip = max(r.received.Sub(r.sent), w.trip*15/16)
	earliest, latest := r.resets()
	tolerance := max(100*time.Millisecond, w.length/20)
	switch {
	case !w.known():
		w.begin(r)
		return true
	case r.sent.Before(w.began) && latest.Before(w.began.Add(tolerance)):
		return false // of the window before
	case !w.confirmed:
		if w.slides = 2*r.quota.Remaining < r.quota.Limit && r.received.Sub(w.began) < w.length/4; w.slides {
			w.remaining, w.others = r.quota.Remaining, others{} // the limit is new: others used no calls of it
		}
		w.confirm(r)
		return false
	case earliest.After(w.latest.Add(tolerance)) || latest.Before(w.earliest.Add(-tolerance)):
		w.begin(r)
		return true
	}
	w.narrow(earliest, latest)
	w.count(r)
	return false
}

// begin starts a window whose first response is r.
func (w *window) begin(r response) {
	if w.limit != r.quota.Limit {
		w.length = 0
	}
	w.first = max(r.call, 1) - 1
	w.room, w.began = min(r.quota.Remaining, r.quota.Limit), r.sent
	if r.call > 0 { // else nothing counted the call
		w.room++
	}
	w.remaining, w.counted, w.asOf, w.void = w.room, w.first, w.began, 0
	w.confirm(r)
}

// confirm updates an assumed window from its first response.
func (w *window) confirm(r response) {
	w.count(r)
	w.earliest, w.latest = r.resets()
	w.confirmed = true
	if reset := time.Duration(r.quota.ResetMS) * time.Millisecond; reset <= maxWindow {
		w.length = max(w.length, reset)
	}
}

// narrow updates when the window ends from another response.
func (w *window) narrow(earliest, latest time.Time) {
	if earliest.After(w.latest) || latest.Before(w.earliest) { // the newer one counts
		w.earliest, w.latest = earliest, latest
		return
	}
	if earliest.After(w.earliest) {
		w.earliest = earliest
	}
	if latest.Before(w.latest) {
		w.latest = latest
	}
}

// count updates how many calls are left. Of calls that were under way together, the
// response to an earlier one may come later, and states too many.
func (w *window) count(r response) {
	remaining := min(r.quota.Remaining, r.quota.Limit)
	w.limit = r.quota.Limit
	if r.call <= w.counted {
		w.remaining = min(w.remaining, remaining)
		return
	}
	own := w.advanceTo(r.call)
	w.others.add(w.remaining-remaining-own, own, r.received.Sub(w.asOf))
	w.remaining, w.asOf, w.countedAt = remaining, r.received, r.sent
}

// foreign returns how many calls of the window were made elsewhere, as of asOf.
func (w *window) foreign() int64 {
	own := int64(w.counted) - int64(w.first) //nolint:gosec // counters of calls
	return max(0, w.room-w.remaining-max(own-w.void, 0))
}

// certain is how many calls were left, as of asOf, without those that are under way: all
// that were sent after the counted one, and those before that may have been overtaken.
func (w *window) certain() float64 {
	left := float64(w.remaining - w.pending())
	for _, f := range w.flights {
		if f.call < w.counted && w.countedAt.Sub(f.sent) < apart {
			left--
		}
	}
	return left
}

// left estimates how many calls are left now. It assumes that others continue as before,
// but spread what is left over the window.
func (w *window) left(now time.Time) float64 {
	left := w.certain()
	if left < 1 || w.others.share() == 1 {
		return left
	}
	end := w.end()
	spread := left * float64(max(end.Sub(now), 0)) / float64(max(end.Sub(w.asOf), 1))
	return max(left-w.others.in(now.Sub(w.asOf)), spread)
}

// reserve is how many calls are kept for clients that have not called yet.
func (w *window) reserve() float64 {
	r := max(1, math.Floor(float64(w.limit)*reserveShare))
	if w.others.share() < 1 {
		r++ // what others use is known late
	}
	return r
}

// end is when the reserve may be used up, so that nothing is wasted: the calls must arrive
// before the window ends.
func (w *window) end() time.Time { return w.earliest.Add(-margin) }

// paced is when what is not in reserve should be used up, so that the slowest call arrives
// in time. A slow function does not make that later.
func (w *window) paced() time.Time {
	paced := w.latest.Add(-margin - min(w.trip, w.length/50))
	if end := w.end(); end.Before(paced) {
		return end
	}
	return paced
}

// floor is how many calls must be left after one that goes without a wait.
func (w *window) floor(now time.Time) float64 {
	if !now.Before(w.end()) {
		// Others do the same, and so have proportionally many calls under way.
		return (1/w.others.share() - 1) * (1 + float64(w.pending()))
	}
	reserve, spread := w.spread()
	paced := w.paced()
	return reserve + spread*float64(max(paced.Sub(now), 0))/float64(max(paced.Sub(w.began), 1))
}

// spread returns the reserve, and how many calls are spread over the window. A window that
// is only assumed has no burst.
func (w *window) spread() (reserve, spread float64) {
	reserve = w.reserve()
	spread = max(float64(w.room)-reserve, 0)
	if w.confirmed {
		spread *= 1 - burst*w.others.share()
	}
	return reserve, spread
}

// interval is the time between two calls, if the proxy's share of what is left is spread
// over the rest of the window; the whole rest if nothing is.
func (w *window) interval(now time.Time) time.Duration {
	rest := max(w.paced().Sub(now), 0)
	return time.Duration(float64(rest) / max((w.left(now)-w.reserve())*w.others.share(), 1))
}

// opens is when the next call may go without harm to the reserve, if none goes before and
// next is its turn.
func (w *window) opens(now, next time.Time) time.Time {
	left, end := w.left(now), w.end()
	if left < 1 {
		return w.latest
	}
	reserve, spread := w.spread()
	at := end
	if left-1 > reserve && spread > 0 { // when the floor will be low enough
		paced := w.paced()
		at = paced.Add(-time.Duration((left - 1 - reserve) / spread * float64(paced.Sub(w.began))))
	}
	if left-reserve >= 1 && next.Before(at) {
		at = next
	}
	switch {
	case at.Before(now) && now.Before(end):
		return now
	case at.Before(now): // the rest is for others
		return w.latest
	}
	return at
}
