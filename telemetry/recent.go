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
	// maxRequests, maxRejected, maxFailed and maxTokenEvents limit the single entries
	// in memory. windowSeconds is the length of the window with sums per second.
	// Rejected requests have a separate limit, since anyone can send any number of
	// them.
	maxRequests    = 200
	maxRejected    = 50
	maxFailed      = 50
	maxTokenEvents = 20
	windowSeconds  = 15 * 60
	// stepSeconds is the number of seconds per point of the plot.
	stepSeconds = 5
	// maxShownPath and maxShownText limit the texts of one request in memory, in bytes.
	maxShownPath = 256
	maxShownText = 512
)

// second has the sums of one second.
type second struct {
	at                  int64 // Unix time
	requests            uint32
	responded           uint32 // by Mimecast
	proxyTime, upstream time.Duration
	faults              [faultRows]uint32
}

// Rows for counting faults: by [event.Code.Index], and two more for too_busy with a
// limit that is not the proxy's.
const (
	clientLimitRow = event.Count + iota
	mimecastLimitRow
	faultRows
)

// rowKinds describes what each row counts.
var rowKinds = append(event.Kinds(), event.TooBusy.KindOf(event.ComponentClient), event.TooBusy.KindOf(event.ComponentMimecast))

// occurrence is when a fault last happened, and its explanation.
type occurrence struct {
	at   time.Time
	text string
}

// recent keeps the recent past, in bounded memory.
type recent struct {
	mu          sync.Mutex
	total       uint64 // the next request's number
	requests    ring
	rejected    ring
	failed      ring                  // also in requests, until replaced there
	seconds     [windowSeconds]second // a ring, indexed by time
	latest      [faultRows]occurrence
	denials     [event.Count]*denial
	retries     map[event.RetryOutcome]uint64
	clients     map[string]*clientUsage // by name
	byClient    *prometheus.CounterVec  // nil if no clients have names
	patterns    []string                // the counted routes
	routes      map[string]*usage       // by pattern
	own         durations               // the proxy's time before Mimecast's response began
	upstream    durations
	quota       mimecast.Quota
	quotaAt     time.Time          // zero before the first
	tokenEvents []event.TokenEvent // oldest first
	lastFailure *event.TokenEvent
	renewing    map[string]bool // accounts with a token request in progress
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

// clientUsage counts the requests of a named client.
type clientUsage struct {
	usage
	account string
	// counter is the counter of the client's latest status, and code the status's index
	// in statusLabels. The lookup by labels costs more the more clients there are.
	counter prometheus.Counter
	code    int
}

// count counts a response in vec.
func (c *clientUsage) count(vec *prometheus.CounterVec, client string, status int) {
	if code := statusIndex(status); c.counter == nil || c.code != code {
		c.counter, c.code = vec.WithLabelValues(client, statusLabels[code]), code
	}
	c.counter.Inc()
}

// denial counts the requests rejected for one reason. In its usage, those that were
// forwarded in report mode count as failed.
type denial struct {
	event.Denial
	usage
}

// countUsage counts a request by client and by route. The caller holds s.mu.
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

// entry returns the value at a key, and creates it if it is missing.
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

// keepClients removes the clients that are not in names.
func (s *recent) keepClients(names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.clients, func(name string, _ *clientUsage) bool { return !slices.Contains(names, name) })
}

// ring has the last requests of a kind.
type ring struct {
	requests []event.Request
	oldest   int // index of the oldest request once the ring is full
}

func (g *ring) add(r event.Request, size int) {
	if len(g.requests) < size {
		g.requests = append(g.requests, r)
		return
	}
	g.requests[g.oldest] = r
	g.oldest = (g.oldest + 1) % size
}

// second returns the sums of a second. It clears sums from an earlier window.
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
