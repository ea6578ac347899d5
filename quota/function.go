package quota

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

// maxClients bounds the clients that a function counts separately. The others share one
// place as otherClients, a text that cannot be a client's name.
const (
	maxClients   = 64
	otherClients = "(other)"
)

// function is what Mimecast counts by, in one account. It is guarded by the model's mu.
type function struct {
	model   *Model
	account *account.Account
	path    string
	label   string
	gone    bool // forgotten: nothing waits

	window window
	seen   time.Time // when a response last said something
	used   time.Time // when it was last called
	// next is when the next call goes, if fewer calls are left than the window's floor.
	next time.Time
	// probed is when a call last went on trial.
	probed  time.Time
	clients map[string]*client
	waiters []*waiter // in the order in which they came
	timer   *time.Timer

	paced  map[event.PaceOutcome]uint64
	waited time.Duration
}

// client is what one client used of the window.
type client struct {
	name           string
	calls, limited uint64
	before         uint64 // what it used of the window before
	waiting        int
}

// served is how many calls of the quota a client has had.
func (c *client) served() uint64 { return c.calls - min(c.limited, c.calls) }

// waiter is a call that waits for its turn.
type waiter struct {
	client *client
	turn   chan call // gets the call when it may go
}

// client returns a client's share.
func (f *function) client(name string) *client {
	if len(name) > maxPath {
		name = otherClients
	}
	if c := f.clients[name]; c != nil {
		return c
	}
	if len(f.clients) >= maxClients && name != otherClients {
		return f.client(otherClients)
	}
	c := &client{name: name}
	f.clients[name] = c
	return c
}

// advance goes to the next window if this one has ended.
func (f *function) advance(now time.Time) {
	if f.window.advance(now) {
		f.next = f.window.began
		f.newShares()
	}
}

// newShares starts the counts of a new window.
func (f *function) newShares() {
	for _, c := range f.clients {
		c.before, c.calls, c.limited = c.served(), 0, 0
	}
	maps.DeleteFunc(f.clients, func(_ string, c *client) bool { return c.before == 0 && c.waiting == 0 })
}

// learn updates the window from the response to a client's call.
func (f *function) learn(r response, c *client, status int) {
	f.window.land(r.call)
	f.advance(r.received)
	switch {
	case r.usable():
		f.seen = r.received
		if f.window.observe(r) {
			f.newShares()
			f.clients[c.name] = c
			c.calls = 1
			f.next = r.received
		}
	case status < http.StatusMultipleChoices && r.quota.Limit == mimecast.NotStated && (!f.window.confirmed || f.window.isTooLong(r.received)):
		f.window.latest = time.Time{} // it has no quota any more
	}
	if status == http.StatusTooManyRequests {
		c.limited++
	}
	f.pump(r.received)
}

// failed notes a call that got no response. Mimecast may have counted it, unless it was
// not sent.
func (f *function) failed(c call, sent bool, now time.Time) {
	switch {
	case sent:
		f.window.land(c.number)
	case f.window.takeBack(c.number):
		c.client.calls -= min(1, c.client.calls)
		f.next = earlier(f.next, now)
	}
	f.pump(now)
}

// pump sends the calls whose turn it is, and sets the timer for the next.
func (f *function) pump(now time.Time) {
	f.advance(now)
	for len(f.waiters) > 0 {
		i := f.first()
		w := f.waiters[i]
		d := f.decide(w.client, now)
		if d == waits {
			break
		}
		f.remove(i)
		w.turn <- f.take(w.client, d, now)
	}
	f.setTimer(now)
}

// first returns whose turn is next: the client that had the fewest calls of the window,
// then the order of arrival.
func (f *function) first() int {
	best := 0
	for i, w := range f.waiters {
		if w.client.served() < f.waiters[best].client.served() {
			best = i
		}
	}
	return best
}

func (f *function) remove(i int) {
	f.waiters[i].client.waiting--
	f.waiters = slices.Delete(f.waiters, i, i+1)
}

// decision is whether a call goes now.
type decision int

const (
	waits  decision = iota
	passes          // before its turn, since the client had few calls
	goes            // in turn: the next one's is later
	probes          // on trial: its response says what is left
)

// decide says whether a client's call may go now.
func (f *function) decide(c *client, now time.Time) decision {
	d := f.inTurn(c, now)
	if d == waits && f.mayProbe(now) {
		return probes
	}
	return d
}

// mayProbe reports whether a call may go on trial: one at a time if failed calls may have
// used all that was left, and one a minute if the stated end of the window is implausible.
func (f *function) mayProbe(now time.Time) bool {
	w := &f.window
	if w.isTooLong(now) && !now.Before(f.probed.Add(probeEvery)) {
		return true
	}
	return w.flying == 0 && w.remaining > 0 && w.certain() < 1
}

// inTurn says whether a client's call may go by the model.
func (f *function) inTurn(c *client, now time.Time) decision {
	w := &f.window
	if f.gone || !w.known() {
		return passes
	}
	left := w.left(now)
	switch {
	case w.certain() < 1:
		return waits
	case c.served() == 0 && (w.confirmed || c.before == 0):
		return passes // a client without a call in the window does not wait
	case left-1 >= w.floor(now):
		return goes
	case left-1 < w.reserve():
		return waits
	case f.light(c):
		return passes
	case now.Before(f.next):
		return waits
	}
	return goes
}

// take counts a call that goes now.
func (f *function) take(c *client, d decision, now time.Time) call {
	number := f.window.send(now)
	c.calls++
	f.used = now
	switch d {
	case goes:
		f.next = now.Add(f.window.interval(now))
	case probes:
		f.probed = now
	case waits, passes:
	}
	return call{f, c, number}
}

// light reports whether a client had less than half of what the clients had on average.
func (f *function) light(c *client) bool {
	var clients, calls uint64
	for _, other := range f.clients {
		if n := other.served(); n > 0 || other.waiting > 0 {
			clients++
			calls += n
		}
	}
	return clients > 1 && 2*(c.served()+1)*clients <= calls
}

// setTimer wakes the function when the next call that waits may go.
func (f *function) setTimer(now time.Time) {
	if len(f.waiters) == 0 {
		if f.timer != nil {
			f.timer.Stop()
		}
		return
	}
	// A millisecond keeps a rounding error from spinning.
	d := max(f.opens(now).Sub(now), time.Millisecond)
	if f.timer == nil {
		f.timer = time.AfterFunc(d, f.wake)
		return
	}
	f.timer.Reset(d)
}

// opens is when the next call that waits may go, unless a response changes that.
func (f *function) opens(now time.Time) time.Time {
	opens := f.window.opens(now, f.next)
	if f.window.isTooLong(now) {
		return earlier(opens, f.probed.Add(probeEvery))
	}
	return opens
}

func (f *function) wake() {
	f.model.mu.Lock()
	defer f.model.mu.Unlock()
	f.pump(time.Now())
}

// ahead returns how many waiting calls go before a new call of the client.
func (f *function) ahead(c *client) (n int) {
	mine := int(c.served()) + c.waiting //nolint:gosec // counters of calls
	counted := map[*client]bool{c: true}
	n = c.waiting
	for _, w := range f.waiters {
		if o := w.client; !counted[o] {
			counted[o] = true
			n += min(max(mine-int(o.served())+1, 0), o.waiting) //nolint:gosec // counters of calls
		}
	}
	return n
}

// turn estimates when a call goes that has some ahead of it.
func (f *function) turn(now time.Time, ahead int) time.Time {
	turn := f.turnByModel(now, ahead)
	if f.window.isTooLong(now) {
		return earlier(turn, f.probed.Add(time.Duration(ahead+1)*probeEvery))
	}
	return turn
}

func (f *function) turnByModel(now time.Time, ahead int) time.Time {
	w := &f.window
	// from is when the next window begins, and over how many calls have to wait for it.
	from, over := w.latest, float64(ahead)-w.left(now)
	switch {
	case w.remaining > 0 && w.certain() < 1 && w.lost() > 0: // a probe is under way
		return now.Add(time.Duration(ahead+1) * w.trip)
	case !w.confirmed: // there will be a burst as soon as a response confirms the window
		from, over = now, float64(ahead)
	case float64(ahead) < w.left(now)-w.reserve():
		at := w.opens(now, f.next).Add(time.Duration(ahead) * w.interval(now))
		if at.Before(w.end()) {
			return at
		}
		return w.end()
	case over < 0:
		return later(now, w.end())
	}
	each := float64(w.length) / float64(w.limit)
	return from.Add(time.Duration(max(0, over-burst*float64(w.limit)) * each))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
