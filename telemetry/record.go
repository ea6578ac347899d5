package telemetry

import (
	"context"
	"net/http"
	"sync"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

// record is what is known of one request, and is the context of it, in one
// allocation. It is not pooled: a hook may be called after the request has ended,
// from a goroutine that outlives it.
type record struct {
	context.Context
	responseWriter responseWriter
	body           countingBody
	start          time.Time
	previous, next *record // in flight; guarded by the list's mutex
	// What the request was, noted before any handler can change it.
	id, method, path, peer, trace string

	mu     sync.Mutex
	events events // guarded by mu
}

// events is what the hooks reported.
type events struct {
	// client is the name of the client, and account that of its account; both are empty
	// for a client without a name.
	client, account string

	route      string
	denied     event.Code
	passed     bool            // denied, but let through
	limit      string          // the setting whose limit was exceeded
	owner      event.Component // whose that is, if not the proxy's
	code       event.Code      // of the problem that the proxy sent as its response
	failure    string          // its text, scrubbed
	mimecast   string          // its request id
	sent       time.Time       // to Mimecast, if no response began
	attempts   int             // that Mimecast responded to
	answered   time.Time       // by the API, for the last time
	upstream   time.Duration
	clientWait time.Duration // for the client's body before it was sent on, and for a rate limit
	limited    time.Time     // of the last response, if that was 429
	resent     bool
}

type recordKey struct{}

// Value implements context.Context.
func (r *record) Value(key any) any {
	if key == (recordKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// withRecord lets f note something on the record of a request, if ctx is of one.
func withRecord(ctx context.Context, f func(*record)) {
	r, ok := ctx.Value(recordKey{}).(*record)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// Denied counts a request that the guard rejected, or would have.
func (t *Telemetry) Denied(ctx context.Context, reason event.Code, passed bool) {
	t.metrics.denied.WithLabelValues(string(reason)).Inc()
	method, path, client := "", "", ""
	withRecord(ctx, func(r *record) {
		r.events.denied, r.events.passed = reason, passed
		method, path, client = r.method, r.path, r.events.client
	})
	if t.metrics.deniedClients != nil && client != "" {
		t.metrics.deniedClients.WithLabelValues(client, string(reason)).Inc()
	}
	t.recent.addDenial(time.Now(), reason, passed, method, path)
}

// Client notes whose request it is, and which account it uses.
func (t *Telemetry) Client(ctx context.Context, client, account string) {
	if client == "" {
		return
	}
	withRecord(ctx, func(r *record) { r.events.client, r.events.account = client, account })
}

// Limit notes the setting whose limit a request exceeds, and whose that is, if it is not
// the proxy's.
func (t *Telemetry) Limit(ctx context.Context, setting string, owner event.Component) {
	withRecord(ctx, func(r *record) { r.events.limit, r.events.owner = setting, owner })
}

// Route notes the pattern that let a request pass.
func (t *Telemetry) Route(ctx context.Context, pattern string) {
	withRecord(ctx, func(r *record) { r.events.route = pattern })
}

// Unauthorized counts a 401 by its reason.
func (t *Telemetry) Unauthorized(_ context.Context, reason event.UnauthorizedReason) {
	t.metrics.unauthorized.WithLabelValues(string(reason)).Inc()
}

// Retried counts how a 401 ended.
func (t *Telemetry) Retried(ctx context.Context, outcome event.RetryOutcome) {
	t.metrics.retries.WithLabelValues(string(outcome)).Inc()
	withRecord(ctx, func(r *record) { r.events.resent = r.events.resent || outcome.Resent() })
	t.recent.addRetry(outcome)
}

// Sent notes that a request is sent to Mimecast.
func (t *Telemetry) Sent(ctx context.Context, at time.Time) {
	withRecord(ctx, func(r *record) { r.events.sent = at })
}

// Answered notes a response from Mimecast, and how long its headers took.
func (t *Telemetry) Answered(ctx context.Context, status int, h http.Header, took time.Duration) {
	t.metrics.upstream.Observe(took.Seconds())
	if q, ok := mimecast.ReadQuota(h); ok {
		t.metrics.setRateLimit(accountName(ctx), q)
		t.recent.setRateLimit(time.Now(), q)
	}
	id := h.Get("X-Request-Id")
	if !isValidID(id) {
		id = ""
	}
	id = t.redactor.Redact(id)
	withRecord(ctx, func(r *record) {
		r.addAttempt(status, time.Now(), took)
		r.events.mimecast = id
	})
}

// addAttempt sums up what the proxy waited for. The rest of a request's time is the
// proxy's.
func (r *record) addAttempt(status int, now time.Time, took time.Duration) {
	sent := now.Add(-took)
	switch {
	case r.events.attempts == 0 && !r.start.Add(time.Duration(r.body.last.Load())).After(sent):
		r.events.clientWait += time.Duration(r.body.clientWait.Load())
	case !r.events.limited.IsZero():
		r.events.clientWait += max(0, sent.Sub(r.events.limited))
	}
	if !r.events.sent.IsZero() { // otherwise it is the host of batch files
		r.events.answered = now
	}
	r.events.limited, r.events.sent = time.Time{}, time.Time{}
	if status == http.StatusTooManyRequests {
		r.events.limited = now
	}
	r.events.attempts++
	r.events.upstream += took
}

// Failed notes the error response that the proxy sent.
func (t *Telemetry) Failed(ctx context.Context, p *problem.Problem) {
	text := t.scrub(p.Error())
	withRecord(ctx, func(r *record) {
		r.events.code, r.events.failure = p.Code, text
		if p.Limit != "" {
			r.events.limit, r.events.owner = p.Limit, p.LimitOwner
		}
	})
}

// RateLimitWait counts how holding back a request that got 429 ended.
func (t *Telemetry) RateLimitWait(_ context.Context, outcome event.HoldOutcome) {
	t.metrics.waits.WithLabelValues(string(outcome)).Inc()
}

// ReplayBytes notes how the size of all kept bodies changed.
func (t *Telemetry) ReplayBytes(delta int64) { t.metrics.replay.Add(float64(delta)) }
