package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

const (
	// maxRequests, maxRejected, maxFailed and maxTokenEvents bound what is remembered one by
	// one, windowSeconds what is remembered as sums by the second. Rejected requests
	// are counted separately: strangers can send any number of them.
	maxRequests    = 200
	maxRejected    = 50
	maxFailed      = 50
	maxTokenEvents = 20
	windowSeconds  = 15 * 60
	// stepSeconds is how many seconds a point of the plot covers.
	stepSeconds = 5
	// maxShownPath and maxShownText bound what one remembered request takes.
	maxShownPath = 256
	maxShownText = 512
)

// second holds the sums of one second.
type second struct {
	at                  int64 // Unix
	requests            uint32
	responded           uint32 // by Mimecast
	proxyTime, upstream time.Duration
	faults              [faultRows]uint32
}

// Faults are counted by [event.Code.Index], and too_busy by whose limit it is.
const (
	clientLimitRow = event.Count + iota
	mimecastLimitRow
	faultRows
)

// rowKinds has what each row counts.
var rowKinds = append(event.Kinds(), event.TooBusy.KindOf(event.ComponentClient), event.TooBusy.KindOf(event.ComponentMimecast))

// occurrence is when something happened last, and how it was explained.
type occurrence struct {
	at   time.Time
	text string
}

// recent remembers the recent past, in bounded memory.
type recent struct {
	mu          sync.Mutex
	total       uint64 // the next request's number
	requests    ring
	rejected    ring
	failed      ring                  // also among the requests, while those last
	seconds     [windowSeconds]second // a ring by time
	latest      [faultRows]occurrence
	denials     [event.Count]*denial
	retries     map[event.RetryOutcome]uint64
	clients     map[string]*clientUsage // by name
	byClient    *prometheus.CounterVec  // nil if no clients have names
	patterns    []string                // the routes that are counted
	routes      map[string]*usage       // by pattern
	own         durations               // of the proxy, until Mimecast's response began
	upstream    durations
	quota       mimecast.Quota
	quotaAt     time.Time          // zero before the first
	tokenEvents []event.TokenEvent // oldest first
	lastFailure *event.TokenEvent
	renewing    map[string]bool // the accounts for which a token request is under way
}

func (s *recent) addRequest(rec *record, o *outcome) {
	now := rec.start.Add(o.took)
	r := event.Request{
		Time: now.UTC().Truncate(time.Millisecond), RequestID: rec.id, Method: rec.method, Path: truncate(rec.path, maxShownPath), Status: o.status,
		DurationMS: milliseconds(o.took), OwnMS: milliseconds(o.proxyTime), UpstreamMS: milliseconds(o.upstream),
		BytesIn: o.in, BytesOut: o.out, Retried: o.retried(), Client: cmp.Or(o.client, rec.peer), Peer: rec.peer, Account: o.account, Route: o.route,
		MimecastID: o.mimecast, TraceID: rec.trace, Aborted: o.aborted,
		Fault: o.fault, Error: truncate(o.explanation(), maxShownText),
	}
	row := 0
	if o.fault != "" {
		row = o.faultRow()
		r.Component = o.component()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Seq = s.total
	s.total++
	if o.rejected() {
		s.rejected.add(r, maxRejected)
	} else {
		s.requests.add(r, maxRequests)
		if o.fault != "" {
			s.failed.add(r, maxFailed)
		}
	}
	s.countUsage(now, o)
	sec := s.second(now.Unix())
	sec.requests++
	if o.attempts > 0 {
		sec.responded++
		sec.proxyTime += o.proxyTime
		sec.upstream += o.upstream
		s.own.add(now, r.OwnMS)
		s.upstream.add(now, r.UpstreamMS)
	}
	if o.fault != "" {
		sec.faults[row]++
		s.latest[row] = occurrence{r.Time, r.Error}
	}
}

// clientUsage is what a client with a name has sent.
type clientUsage struct {
	usage
	account string
	// counter is that of the client's latest status, and code is its index in statusLabels.
	// To look one up by its labels costs the more the more clients there are.
	counter prometheus.Counter
	code    int
}

// count counts a response in a vector.
func (c *clientUsage) count(vec *prometheus.CounterVec, client string, status int) {
	if code := statusIndex(status); c.counter == nil || c.code != code {
		c.counter, c.code = vec.WithLabelValues(client, statusLabels[code]), code
	}
	c.counter.Inc()
}

// denial is how often requests were rejected for one reason. Those that passed count as
// failed in its usage.
type denial struct {
	event.Denial
	usage
}

// countUsage counts a request by client and by route. Its mutex is held by the caller.
func (s *recent) countUsage(now time.Time, o *outcome) {
	if o.client != "" {
		c := entry(&s.clients, o.client)
		c.account = o.account
		c.add(now, o)
		if s.byClient != nil {
			c.count(s.byClient, o.client, o.status)
		}
	}
	if len(s.patterns) == 0 {
		return
	}
	route := other
	if slices.Contains(s.patterns, o.route) {
		route = o.route
	}
	entry(&s.routes, route).add(now, o)
}

// entry returns what is at a key, which is made if it is missing.
func entry[T any](all *map[string]*T, key string) *T {
	one := (*all)[key]
	if one == nil {
		if *all == nil {
			*all = make(map[string]*T)
		}
		one = new(T)
		(*all)[key] = one
	}
	return one
}

// keepClients forgets the clients that names does not have.
func (s *recent) keepClients(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.clients, func(name string, _ *clientUsage) bool { return !slices.Contains(names, name) })
}

// ring holds the last requests of a kind.
type ring struct {
	requests []event.Request
	oldest   int // once it is full
}

func (g *ring) add(r event.Request, size int) {
	if len(g.requests) < size {
		g.requests = append(g.requests, r)
		return
	}
	g.requests[g.oldest] = r
	g.oldest = (g.oldest + 1) % size
}

// second returns the sums of a second, emptied where they are of one long past.
func (s *recent) second(at int64) *second {
	sec := &s.seconds[at%windowSeconds]
	if sec.at != at {
		*sec = second{at: at}
	}
	return sec
}

func (s *recent) addDenial(now time.Time, reason event.Code, passed bool, method, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := reason.Index()
	d := s.denials[row]
	if d == nil {
		d = new(denial)
		s.denials[row] = d
	}
	step := d.step(now)
	d.Reason, d.LastAt, d.LastMethod, d.LastPath = reason, now.UTC().Truncate(time.Millisecond), method, truncate(path, maxShownPath)
	d.Count++
	step.rejected++
	if passed {
		d.Passed++
		step.failed++
	}
}

func (s *recent) addRetry(outcome event.RetryOutcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retries == nil {
		s.retries = make(map[event.RetryOutcome]uint64)
	}
	s.retries[outcome]++
}

func (s *recent) setRateLimit(now time.Time, q mimecast.Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota, s.quotaAt = q, now
}

func (s *recent) setRenewing(account string, renewing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.renewing == nil {
		s.renewing = make(map[string]bool)
	}
	if renewing {
		s.renewing[account] = true
	} else {
		delete(s.renewing, account)
	}
}

func (s *recent) addToken(ev event.TokenEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.renewing, ev.Account)
	if len(s.tokenEvents) == maxTokenEvents {
		s.tokenEvents = slices.Delete(s.tokenEvents, 0, 1)
	}
	s.tokenEvents = append(s.tokenEvents, ev)
	if ev.Error != "" {
		s.lastFailure = &ev
	}
}
