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

// Request is a received request.
type Request struct {
	// Time is when its header was read.
	Time time.Time
	// Listener is "api" or "blobs".
	Listener string
	// Proto, Method, Host and Header are those of [http.Request].
	Proto  string
	Method string
	// Target is the request target, byte for byte.
	Target string
	Host   string
	Header http.Header
	// Application is the client ID of the request's token, even if the token has expired
	// or was revoked. For a token request, it is the client ID in the form. It is "" if
	// there is none.
	Application string
	// Trailer is the trailer after the body.
	Trailer http.Header
	// BodyLength is the number of bytes of the body that were read.
	BodyLength int64
	// BodySHA256 is the hash of the whole body in hexadecimal. It is "" unless the body
	// was read to its end.
	BodySHA256 string
	// Status is the response's status; 0 while there is no response.
	Status int
	// Done is true once the response was sent or broken off.
	Done bool
}

// Counts are totals of the received requests.
type Counts struct {
	Requests      int `json:"requests"` // to the API, token requests included
	TokenRequests int `json:"tokenRequests"`
	BlobRequests  int `json:"blobRequests"` // to the object store
	// Authorized is the number of API requests with one Authorization header, Ambiguous
	// the number with more.
	Authorized int `json:"authorized"`
	Ambiguous  int `json:"ambiguous"`
	// Misplaced is the number of API requests with [ApplicationHeader] but without a token
	// of the application in it.
	Misplaced int `json:"misplaced"`
	// Applications is the number of API requests by the client ID of their token.
	Applications map[string]int `json:"applications,omitempty"`
	// Statuses is the number of API responses by status.
	Statuses map[int]int `json:"statuses"`
}

// maxExecutions is how many identifiers of a function are counted separately. Further ones
// are counted together, as "".
const maxExecutions = 100_000

// journal records the last requests, and counts all of them.
type journal struct {
	limit       int
	application func(*http.Request) string // returns the client ID of a request's token

	mu         sync.Mutex
	log        []*Request
	counts     Counts
	executions map[string]map[string]int
}

// TokenRequests returns the number of requests to the token endpoint.
func (s *Simulator) TokenRequests() int { return s.Counts().TokenRequests }

// Counts returns the totals since the start or the last Reset.
func (s *Simulator) Counts() Counts {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	c := j.counts
	c.Statuses, c.Applications = maps.Clone(c.Statuses), maps.Clone(c.Applications)
	return c
}

// Executions returns how often a function that changes something was executed, by what it
// changed. The names, and the identifiers, are:
//
//   - hold-release and hold-reject: the message's ID
//   - create-policy, update-policy and delete-policy: the policy's ID
//   - create-managed-url: the URL; delete-managed-url: the entry's ID
//   - file-upload and import-users: the body's hash
//   - send-email: the subject
//   - update-emergency-contact and replace-emergency-contact: the email address
//
// If a request has an Idempotency-Key or X-Idempotency-Key header, its value is the
// identifier instead. The exceptions are hold-release, hold-reject and delete-managed-url.
func (s *Simulator) Executions(name string) map[string]int {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.executions[name])
}

// Requests returns the last requests, oldest first. A request is included as soon as its
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

// Reset clears the recorded requests and executions. Faults, tokens and the state of
// messages remain.
func (s *Simulator) Reset() {
	j := &s.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log, j.counts, j.executions = nil, Counts{}, nil
}

// execute counts one execution and returns the number of identifiers of the function.
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
		// Replacing the body in net/http's own request would break 100 Continue: net/http
		// would no longer know that the client waits for it.
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
			j.log[0] = nil // let the garbage collector free it
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
	if e.Application != "" { // an existing application, not a name that a client made up
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

// setApplication records the application that a token request names.
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

// bodyRecorder measures a body as it is read.
type bodyRecorder struct {
	body    io.ReadCloser
	journal *journal
	entry   *Request
	hash    hash.Hash // nil if no requests are recorded
}

func (m *bodyRecorder) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if m.hash == nil {
		return n, err
	}
	_, _ = m.hash.Write(p[:n]) // hash.Hash never returns an error
	m.journal.mu.Lock()
	defer m.journal.mu.Unlock()
	m.entry.BodyLength += int64(n)
	if errors.Is(err, io.EOF) && m.entry.BodySHA256 == "" {
		m.entry.BodySHA256 = hex.EncodeToString(m.hash.Sum(nil))
	}
	return n, err
}

func (m *bodyRecorder) Close() error { return m.body.Close() }

// statusRecorder records the status of the final response, not of interim ones.
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

// FlushError implements the flush that [http.ResponseController] calls. A flush also sends
// the header.
func (w *statusRecorder) FlushError() error {
	if !w.headerSent {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}
