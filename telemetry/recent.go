package telemetry

import (
	"slices"
	"sync"
	"time"
)

const (
	// keptRequests, keptRejected and keptEvents bound what is remembered one by
	// one, window what is remembered as sums by the second. Requests that were
	// rejected have places of their own: strangers can send any number of them.
	keptRequests = 200
	keptRejected = 50
	keptEvents   = 20
	window       = 15 * 60
	// step is how many seconds a point of the plot covers.
	step = 5
	// maxShownPath and maxShownText bound what one remembered request takes.
	maxShownPath = 256
	maxShownText = 512
)

// Request is a request that is over.
type Request struct {
	// Seq numbers the requests since the start.
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	RequestID string    `json:"request_id"`
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Status    int       `json:"status"`
	// DurationMS is the whole time; OwnMS what the proxy took of it until the
	// answer began, UpstreamMS what Mimecast took until its answer began. What
	// is left is transfer.
	DurationMS float64 `json:"duration_ms"`
	OwnMS      float64 `json:"own_ms"`
	UpstreamMS float64 `json:"upstream_ms"`
	BytesIn    int64   `json:"bytes_in"`
	BytesOut   int64   `json:"bytes_out"`
	Retried    bool    `json:"retried,omitempty"`
	Client     string  `json:"client"`
	Route      string  `json:"route,omitempty"`
	MimecastID string  `json:"mimecast_request_id,omitempty"`
	TraceID    string  `json:"trace_id,omitempty"`
	Aborted    string  `json:"aborted,omitempty"`
	// Fault and Culprit say what went wrong and where to look; empty for a
	// request that did not. Error is the log's explanation.
	Fault   string `json:"fault,omitempty"`
	Culprit string `json:"culprit,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Point is what happened in [Snapshot.StepSeconds].
type Point struct {
	// T is when it began, in Unix seconds.
	T        int64  `json:"t"`
	Requests uint32 `json:"requests"`
	// Faults are requests that went wrong, by culprit.
	Tool     uint32 `json:"tool,omitempty"`
	Proxy    uint32 `json:"proxy,omitempty"`
	Token    uint32 `json:"token,omitempty"`
	Mimecast uint32 `json:"mimecast,omitempty"`
	// OwnMS and UpstreamMS are means over the requests that Mimecast answered.
	OwnMS      float64 `json:"own_ms"`
	UpstreamMS float64 `json:"upstream_ms"`
}

// Fault is what went wrong lately, by kind.
type Fault struct {
	Code    string `json:"code"`
	Culprit string `json:"culprit"`
	// Rejected says that the guard rejected the requests because of the client,
	// so that they tell nothing of how the others fare.
	Rejected bool `json:"rejected,omitempty"`
	// LastMinute and Window count it; Window is that of the snapshot.
	LastMinute uint32    `json:"last_minute"`
	Window     uint32    `json:"window"`
	LastAt     time.Time `json:"last_at"`
	LastError  string    `json:"last_error,omitempty"`
}

// Denial is what the guard refused, by reason, since the start.
type Denial struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	// Passed is how many of them were let through, in report mode.
	Passed     uint64    `json:"passed,omitempty"`
	LastAt     time.Time `json:"last_at"`
	LastMethod string    `json:"last_method,omitempty"`
	LastPath   string    `json:"last_path,omitempty"`
}

// second holds the sums of one second.
type second struct {
	at            int64 // Unix
	requests      uint32
	answered      uint32 // by Mimecast
	own, upstream time.Duration
	faults        [len(faults)]uint32
}

// last is when something happened last, and how it was explained.
type last struct {
	at   time.Time
	text string
}

// recent remembers the recent past, in bounded memory.
type recent struct {
	mu       sync.Mutex
	total    uint64 // the next request's number
	requests ring
	rejected ring
	seconds  [window]second // a ring by time
	lasts    [len(faults)]last
	denials  [len(faults)]Denial
	retries  map[string]uint64
	quota    quota
	quotaAt  time.Time    // zero before the first
	events   []TokenEvent // oldest first
	failure  *TokenEvent
	renewing bool
}

func (s *recent) addRequest(rec *record, o *outcome) {
	f := o.fault
	now := rec.began.Add(o.took)
	r := Request{
		Time: now.UTC().Truncate(time.Millisecond), RequestID: rec.id, Method: rec.method, Path: bound(rec.path, maxShownPath), Status: o.status,
		DurationMS: milliseconds(o.took), OwnMS: milliseconds(o.own), UpstreamMS: milliseconds(o.upstream),
		BytesIn: o.in, BytesOut: o.out, Retried: o.retried(), Client: rec.client, Route: o.route,
		MimecastID: o.mimecast, TraceID: rec.trace, Aborted: o.aborted,
		Fault: faults[f].code, Culprit: faults[f].culprit, Error: bound(o.explanation(), maxShownText),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Seq = s.total
	s.total++
	if o.rejected() {
		s.rejected.add(r, keptRejected)
	} else {
		s.requests.add(r, keptRequests)
	}
	sec := s.second(now.Unix())
	sec.requests++
	sec.faults[f]++
	if o.answers > 0 {
		sec.answered++
		sec.own += o.own
		sec.upstream += o.upstream
	}
	if f != faultNone {
		s.lasts[f] = last{r.Time, r.Error}
	}
}

// ring holds the last requests of a kind.
type ring struct {
	requests []Request
	oldest   int // once it is full
}

func (g *ring) add(r Request, size int) {
	if len(g.requests) < size {
		g.requests = append(g.requests, r)
		return
	}
	g.requests[g.oldest] = r
	g.oldest = (g.oldest + 1) % size
}

// second returns the sums of a second, emptied where they are of one long past.
func (s *recent) second(at int64) *second {
	sec := &s.seconds[at%window]
	if sec.at != at {
		*sec = second{at: at}
	}
	return sec
}

func (s *recent) addDenial(now time.Time, code string, passed bool, method, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.denials[faultOf(code)]
	d.Reason, d.LastAt, d.LastMethod, d.LastPath = code, now.UTC().Truncate(time.Millisecond), method, bound(path, maxShownPath)
	d.Count++
	if passed {
		d.Passed++
	}
}

func (s *recent) addRetry(outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retries == nil {
		s.retries = make(map[string]uint64)
	}
	s.retries[outcome]++
}

func (s *recent) setRateLimit(now time.Time, q quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota, s.quotaAt = q, now
}

func (s *recent) setRenewing(renewing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewing = renewing
}

func (s *recent) addToken(ev TokenEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewing = false
	if len(s.events) == keptEvents {
		s.events = slices.Delete(s.events, 0, 1)
	}
	s.events = append(s.events, ev)
	if ev.Error != "" {
		s.failure = &ev
	}
}
