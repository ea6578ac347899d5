// Package quota keeps to Mimecast's rate limits: a model of each account's quotas, a layer
// that paces calls by it, and a queue for requests that got 429 nevertheless.
//
// Mimecast counts calls per function and application in fixed windows, and states the
// limit, what is left and the reset in response headers. The model learns from every
// response. A function without such headers is neither remembered nor paced.
package quota

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
	"mimecast-proxy/resend"
)

// Pace says what the model does with a call that comes too early.
type Pace int

// The ways to pace. Observe counts the calls that would have waited.
const (
	Off Pace = iota
	Observe
	On
)

// Options say how a model treats calls.
type Options struct {
	// Wait is how long a call may wait in all, for its turn and for a reset after a 429.
	// 0 passes each 429 on, and turns On into Observe.
	Wait  time.Duration
	Pace  Pace
	Trace Trace
}

// Trace reports what happens to a call. Each func may be nil and must not block.
type Trace struct {
	// Held reports how holding a request that got 429 ended.
	Held func(ctx context.Context, outcome event.HoldOutcome)
	// Called reports a response that stated the quota of a function, which is a label of
	// [mimecast.FunctionOf].
	Called func(ctx context.Context, function string, status int)
	// Paced reports how a call ended that came too early, and how long it waited or would
	// have waited. The function is a label of [mimecast.FunctionOf].
	Paced func(ctx context.Context, function string, waited time.Duration, outcome event.PaceOutcome)
}

const (
	// maxFunctions bounds the functions that are remembered of an account: those that
	// were called last.
	maxFunctions = 256
	// maxPath bounds a path that is remembered: of a longer one, its beginning.
	// Mimecast's are shorter.
	maxPath = 256
)

// Model is what is known of the quotas of all accounts. Its methods may be called at any
// time.
type Model struct {
	opts    Options
	places  places
	limiter limiter

	mu        sync.Mutex // never held across I/O
	functions map[*account.Account]map[string]*function
}

// New returns a model without quotas: it learns them from responses.
func New(o Options) *Model {
	if o.Pace == On && o.Wait <= 0 {
		o.Pace = Observe
	}
	m := &Model{opts: o, functions: map[*account.Account]map[string]*function{}}
	m.limiter.places = &m.places
	return m
}

// Wrap returns the layer: it paces calls, learns from responses, and holds a request that
// got 429 until Mimecast's own reset has passed. A 429 comes before anything is carried
// out, so resending is safe for any method.
func (m *Model) Wrap(next http.RoundTripper) http.RoundTripper { return &layer{model: m, next: next} }

// Forget drops what is known of an account. Its calls that wait go at once.
func (m *Model) Forget(a *account.Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, f := range m.functions[a] {
		f.gone = true
		f.pump(now)
	}
	delete(m.functions, a)
}

type layer struct {
	model *Model
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (l *layer) RoundTrip(req *http.Request) (*http.Response, error) {
	call, waited, err := l.model.admit(req)
	if err != nil {
		resend.CloseBody(req)
		return nil, err
	}
	res, err := l.send(req, call)
	if err != nil || res.StatusCode != http.StatusTooManyRequests || l.model.opts.Wait <= 0 {
		return res, err
	}
	return l.resendWhenReady(req, res, time.Now().Add(l.model.opts.Wait-waited))
}

// call is one attempt. The function is nil if it is not known.
type call struct {
	function *function
	client   *client
	number   uint64
}

// send makes one attempt, and learns from the response.
func (l *layer) send(req *http.Request, c call) (*http.Response, error) {
	began := time.Now()
	traced, written := l.traceSending(req, c)
	res, err := l.next.RoundTrip(traced)
	if err != nil {
		l.model.failed(c, isSent(req.Context(), err, written))
		return nil, err
	}
	l.model.learn(req, res, c, began)
	return res, nil
}

// traceSending returns the request with a trace that notes when its header is written. A
// call that is not paced needs none: written is nil.
func (l *layer) traceSending(req *http.Request, c call) (traced *http.Request, written *atomic.Bool) {
	if c.function == nil || l.model.opts.Pace == Off {
		return req, nil
	}
	written = new(atomic.Bool)
	trace := &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), trace)), written
}

// isSent reports whether Mimecast may have counted a call that failed. If Mimecast closed
// the connection before it took the request, the call does not count, although the header
// was written.
func isSent(ctx context.Context, err error, written *atomic.Bool) bool {
	if written != nil && !written.Load() {
		return false
	}
	p, ok := errors.AsType[*problem.Problem](err)
	return !ok || ctx.Err() != nil || p.Code != event.UpstreamUnreachable
}

// failed ends a call that got no response.
func (m *Model) failed(c call, sent bool) {
	if c.function == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.function.failed(c, sent, time.Now())
}

// again counts another attempt of a request that was held.
func (m *Model) again(req *http.Request) call {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.function(functionOf(req))
	if f == nil {
		return call{}
	}
	now := time.Now()
	f.advance(now)
	return f.take(f.client(account.ClientOf(req)), passes, now)
}

// learn updates the model from a response.
func (m *Model) learn(req *http.Request, res *http.Response, c call, sent time.Time) {
	q, ok := mimecast.ReadQuota(res.Header)
	if !ok && c.function == nil {
		return
	}
	key := functionOf(req)
	if ok && m.opts.Trace.Called != nil {
		m.opts.Trace.Called(req.Context(), labelOf(key), res.StatusCode)
	}
	r := response{quota: q, call: c.number, sent: sent, received: time.Now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.function == nil {
		if !r.usable() {
			return
		}
		if c.function = m.remember(key); c.function == nil {
			return
		}
		c.client = c.function.client(account.ClientOf(req))
		c.client.calls++
	}
	c.function.learn(r, c.client, res.StatusCode)
}

// function returns what is known of a function; nil if nothing is.
func (m *Model) function(k functionKey) *function { return m.functions[k.account][k.path] }

// remember returns a function; nil if there is no place for another.
func (m *Model) remember(k functionKey) *function {
	known := m.functions[k.account]
	if f := known[k.path]; f != nil {
		return f
	}
	if known == nil {
		known = map[string]*function{}
		m.functions[k.account] = known
	}
	if len(known) >= maxFunctions && !dropIdlest(known) {
		return nil
	}
	f := &function{model: m, account: k.account, path: strings.Clone(k.path), label: labelOf(k), clients: map[string]*client{}}
	known[f.path] = f
	return f
}

// dropIdlest forgets the function that was called longest ago, unless calls wait for
// each.
func dropIdlest(known map[string]*function) bool {
	var idlest *function
	for _, f := range known {
		if len(f.waiters) == 0 && (idlest == nil || f.used.Before(idlest.used)) {
			idlest = f
		}
	}
	if idlest != nil {
		delete(known, idlest.path)
	}
	return idlest != nil
}

// labelOf returns the label of a function, whose path may have the base URL's before it.
func labelOf(k functionKey) string {
	label := k.path
	if a := k.account; a != nil && a.BaseURL != nil {
		label = strings.TrimPrefix(label, strings.TrimSuffix(a.BaseURL.Path, "/"))
	}
	return mimecast.FunctionOf(label)
}
