package simulator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"
)

// Request is a request that was received.
type Request struct {
	// Time is when its header was read.
	Time time.Time
	// Listener is "api" or "blobs".
	Listener string
	// Proto, Method, Host and Header are net/http's.
	Proto  string
	Method string
	// Target is the request target, byte for byte.
	Target string
	Host   string
	Header http.Header
	// Application is the client ID whose token came with the request, even if that has
	// expired or was revoked, or that a token request names; "" if there is none.
	Application string
	// Trailer is what came after the body.
	Trailer http.Header
	// BodyLength is how much of the body was read.
	BodyLength int64
	// BodySHA256 is the hash of the whole body in hexadecimal; "" if the body
	// was not read to its end, or not yet.
	BodySHA256 string
	// Status is the response's; 0 while there is none.
	Status int
	// Done is true once the response was sent or broken off.
	Done bool
}

// Counts are totals of the received requests.
type Counts struct {
	Requests      int `json:"requests"` // of the API, token requests included
	TokenRequests int `json:"tokenRequests"`
	BlobRequests  int `json:"blobRequests"` // of the object store
	// Authorized counts the requests of the API with one Authorization header,
	// Ambiguous those with more.
	Authorized int `json:"authorized"`
	Ambiguous  int `json:"ambiguous"`
	// Misplaced counts the requests of the API that came without a token of the application
	// that their [ApplicationHeader] names.
	Misplaced int `json:"misplaced"`
	// Applications counts the API's requests by the application whose token they had.
	Applications map[string]int `json:"applications,omitempty"`
	// Statuses counts the API's responses.
	Statuses map[int]int `json:"statuses"`
}

// maxExecutions bounds how many identifiers of a function are counted apart;
// further ones count together, as "".
const maxExecutions = 100_000

// journal records the received requests: the last ones, and the counts of all.
type journal struct {
	limit       int
	application func(*http.Request) string // whose token a request has

	mu         sync.Mutex
	log        []*Request
	counts     Counts
	executions map[string]map[string]int
}

// TokenRequests returns how many requests the token endpoint has had.
func (s *Simulator) TokenRequests() int { return s.Counts().TokenRequests }

// Counts returns the numbers.
func (s *Simulator) Counts() Counts {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.counts
	c.Statuses, c.Applications = maps.Clone(c.Statuses), maps.Clone(c.Applications)
	return c
}

// Executions returns how often a function that changes something was carried
// out, by what it was carried out on: hold-release and hold-reject by message,
// update-policy and delete-policy by policy, file-upload and import-users by
// hash, send-email by subject, create-policy by the new policy. All but the
// first two are keyed by the Idempotency-Key header if a request has one.
func (s *Simulator) Executions(name string) map[string]int {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.executions[name])
}

// Requests returns the last requests, oldest first. One is there from when its
// header was read.
func (s *Simulator) Requests() []Request {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]Request, len(j.log))
	for i, r := range j.log {
		list[i] = *r
	}
	return list
}

// Reset forgets what was received and executed. Faults, tokens and the state of
// messages stay.
func (s *Simulator) Reset() {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log, j.counts, j.executions = nil, Counts{}, nil
}

// execute counts one execution and returns how many there were of its kind.
func (j *journal) execute(name, id string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.executions == nil {
		j.executions = map[string]map[string]int{}
	}
	byID := j.executions[name]
	if byID == nil {
		byID = map[string]int{}
		j.executions[name] = byID
	}
	if _, known := byID[id]; !known && len(byID) >= maxExecutions {
		id = ""
	}
	byID[id]++
	return len(byID)
}

func (j *journal) countToken() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.counts.TokenRequests++
}

// record records the requests to h.
func (j *journal) record(listener string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := j.begin(listener, r)
		body := &bodyRecorder{body: r.Body, journal: j, entry: e}
		if j.limit > 0 {
			body.hash = sha256.New()
		}
		// A copy: with another body in its own request, net/http no longer knows
		// that the client waits for 100 Continue, and asks for what is never sent.
		in := r.WithContext(context.WithValue(r.Context(), entryKey{}, e))
		in.Body = body
		defer j.end(e, r)
		h.ServeHTTP(&statusRecorder{ResponseWriter: w, journal: j, entry: e}, in)
	})
}

func (j *journal) begin(listener string, r *http.Request) *Request {
	e := &Request{Time: time.Now(), Listener: listener, Proto: r.Proto, Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone()}
	if listener == "api" {
		e.Application = j.application(r)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count(e)
	if j.limit > 0 {
		if len(j.log) >= j.limit {
			j.log[0] = nil // or the array behind the slice would keep it
			j.log = j.log[1:]
		}
		j.log = append(j.log, e)
	}
	return e
}

func (j *journal) count(e *Request) {
	if e.Listener != "api" {
		j.counts.BlobRequests++
		return
	}
	j.counts.Requests++
	if e.Application != "" { // which is one that there is, and no made-up name
		if j.counts.Applications == nil {
			j.counts.Applications = map[string]int{}
		}
		j.counts.Applications[e.Application]++
	}
	if want := e.Header.Get(ApplicationHeader); want != "" && want != e.Application {
		j.counts.Misplaced++
	}
	switch n := len(e.Header.Values("Authorization")); {
	case n == 1:
		j.counts.Authorized++
	case n > 1:
		j.counts.Ambiguous++
	}
}

type entryKey struct{}

// setApplication notes which application a token request names.
func (j *journal) setApplication(r *http.Request, id string) {
	if e, ok := r.Context().Value(entryKey{}).(*Request); ok {
		j.mu.Lock()
		defer j.mu.Unlock()
		e.Application = id
	}
}

func (j *journal) status(e *Request, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Status = status
	if e.Listener != "api" {
		return
	}
	if j.counts.Statuses == nil {
		j.counts.Statuses = map[int]int{}
	}
	j.counts.Statuses[status]++
}

func (j *journal) end(e *Request, r *http.Request) {
	trailer := r.Trailer.Clone()
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Trailer, e.Done = trailer, true
}

// bodyRecorder measures a body while it is read.
type bodyRecorder struct {
	body    io.ReadCloser
	journal *journal
	entry   *Request
	hash    hash.Hash // nil: nothing is remembered
}

func (m *bodyRecorder) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if m.hash == nil {
		return n, err
	}
	_, _ = m.hash.Write(p[:n]) // a hash takes everything
	m.journal.mu.Lock()
	defer m.journal.mu.Unlock()
	m.entry.BodyLength += int64(n)
	if errors.Is(err, io.EOF) && m.entry.BodySHA256 == "" {
		m.entry.BodySHA256 = hex.EncodeToString(m.hash.Sum(nil))
	}
	return n, err
}

func (m *bodyRecorder) Close() error { return m.body.Close() }

// statusRecorder sees the status of the response, interim ones apart.
type statusRecorder struct {
	http.ResponseWriter
	journal    *journal
	entry      *Request
	headerSent bool
}

func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusRecorder) WriteHeader(status int) {
	if status >= 200 && !w.headerSent {
		w.headerSent = true
		w.journal.status(w.entry, status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusRecorder) Write(p []byte) (int, error) {
	if !w.headerSent {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// FlushError is what http.ResponseController looks for: a flush sends the
// header, too.
func (w *statusRecorder) FlushError() error {
	if !w.headerSent {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}
