package telemetry

import (
	"context"
	"net/http"
	"sync"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// record is what is known of one request, and is the context of it, in one
// allocation. It is not pooled: a hook may be called when the request is over,
// from a goroutine that outlives it.
type record struct {
	context.Context
	writer writer
	body   reader
	began  time.Time
	// What the request was, noted before any handler can change it.
	id, method, path, client, trace string

	mu   sync.Mutex
	told told // guarded by mu
}

// told is what the hooks said.
type told struct {
	route    string
	denied   event.Code
	passed   bool       // denied, but let through
	code     event.Code // of the problem that the proxy sent as its response
	failure  string     // its text, scrubbed
	mimecast string     // its request id
	answers  int
	upstream time.Duration
	waited   time.Duration // for the client's body before it was sent on, and for a rate limit
	limited  time.Time     // of the last answer, if that was 429
	resent   bool
}

type recordKey struct{}

// Value implements context.Context.
func (r *record) Value(key any) any {
	if key == (recordKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// tell lets f note something on the record of a request, if ctx is of one.
func tell(ctx context.Context, f func(*record)) {
	r, ok := ctx.Value(recordKey{}).(*record)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// Denied counts a request that the guard refused, or would have.
func (t *Telemetry) Denied(ctx context.Context, reason event.Code, passed bool) {
	t.metrics.denied.WithLabelValues(string(reason)).Inc()
	method, path := "", ""
	tell(ctx, func(r *record) {
		r.told.denied, r.told.passed = reason, passed
		method, path = r.method, r.path
	})
	t.recent.addDenial(time.Now(), reason, passed, method, path)
}

// Route notes the pattern that let a request pass.
func (t *Telemetry) Route(ctx context.Context, pattern string) {
	tell(ctx, func(r *record) { r.told.route = pattern })
}

// Unauthorized counts a 401 by its reason.
func (t *Telemetry) Unauthorized(_ context.Context, reason event.UnauthorizedReason) {
	t.metrics.unauthorized.WithLabelValues(string(reason)).Inc()
}

// Retried counts how a 401 ended.
func (t *Telemetry) Retried(ctx context.Context, outcome event.RetryOutcome) {
	t.metrics.retries.WithLabelValues(string(outcome)).Inc()
	tell(ctx, func(r *record) { r.told.resent = r.told.resent || outcome.Resent() })
	t.recent.addRetry(outcome)
}

// Answered notes an answer of Mimecast's, and how long its headers took.
func (t *Telemetry) Answered(ctx context.Context, status int, h http.Header, took time.Duration) {
	t.metrics.upstream.Observe(took.Seconds())
	if q, ok := readQuota(h); ok {
		t.metrics.setRateLimit(q)
		t.recent.setRateLimit(time.Now(), q)
	}
	id := h.Get("X-Request-Id")
	if !saneID(id) {
		id = ""
	}
	id = t.redactor.Redact(id)
	tell(ctx, func(r *record) {
		r.answered(status, time.Now(), took)
		r.told.mimecast = id
	})
}

// answered sums up what the proxy waited for, so that what is left of a
// request's time is the proxy's own.
func (r *record) answered(status int, now time.Time, took time.Duration) {
	sent := now.Add(-took)
	switch {
	case r.told.answers == 0 && !r.began.Add(time.Duration(r.body.last.Load())).After(sent):
		r.told.waited = time.Duration(r.body.waited.Load())
	case !r.told.limited.IsZero():
		r.told.waited += max(0, sent.Sub(r.told.limited))
	}
	r.told.limited = time.Time{}
	if status == http.StatusTooManyRequests {
		r.told.limited = now
	}
	r.told.answers++
	r.told.upstream += took
}

// Failed notes why the proxy sent an error response of its own.
func (t *Telemetry) Failed(ctx context.Context, p *problem.Problem) {
	text := t.scrub(p.Error())
	tell(ctx, func(r *record) { r.told.code, r.told.failure = p.Code, text })
}

// RateLimitWait counts how holding back a request that got 429 ended.
func (t *Telemetry) RateLimitWait(_ context.Context, outcome event.HoldOutcome) {
	t.metrics.waits.WithLabelValues(string(outcome)).Inc()
}

// ReplayBytes notes how the size of all kept bodies changed.
func (t *Telemetry) ReplayBytes(delta int64) { t.metrics.replay.Add(float64(delta)) }
