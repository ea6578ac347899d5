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

// record is what is known about one request. It is also the request's context, which
// saves an allocation. It is not pooled: goroutines that outlive the request may still
// call hooks.
type record struct {
	context.Context
	responseWriter responseWriter
	body           countingBody
	start          time.Time
	previous, next *record // in the in-flight list; guarded by its mutex
	// Data of the request, copied before a handler can change it.
	id, method, path, peer, trace string

	mu     sync.Mutex
	events events // guarded by mu
}

// events is what the hooks reported.
type events struct {
	// client is the client's name, and account the name of its account. Both are empty
	// for a client without a name.
	client, account string

	route      string
	denied     event.Code
	passed     bool            // denied, but forwarded in report mode
	limit      string          // the setting whose limit was exceeded
	owner      event.Component // owner of that limit; empty if it is the proxy's
	code       event.Code      // code of the error response that the proxy sent
	failure    string          // text of that error response, scrubbed
	mimecast   string          // Mimecast's request ID
	sent       time.Time       // when the request was sent to Mimecast; zero once the response began
	attempts   int             // number of responses from Mimecast
	answered   time.Time       // when the API last responded
	upstream   time.Duration
	clientWait time.Duration // time waiting for the client's body before sending, and for a rate limit
	limited    time.Time     // when the last response came, if it was 429
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

// withRecord calls f with the locked record of a request. It does nothing if ctx has no
// record.
func withRecord(ctx context.Context, f func(*record)) {
	r, ok := ctx.Value(recordKey{}).(*record)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// Denied counts a request that the guard rejected. passed means that it was forwarded
// in report mode.
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

// Client records a request's client and account. It ignores clients without a name.
func (t *Telemetry) Client(ctx context.Context, client, account string) {
	if client == "" {
		return
	}
	withRecord(ctx, func(r *record) { r.events.client, r.events.account = client, account })
}

// Limit records the setting whose limit a request exceeds, and the limit's owner; empty
// if it is the proxy's.
func (t *Telemetry) Limit(ctx context.Context, setting string, owner event.Component) {
	withRecord(ctx, func(r *record) { r.events.limit, r.events.owner = setting, owner })
}

// Route records the pattern that allowed a request.
func (t *Telemetry) Route(ctx context.Context, pattern string) {
	withRecord(ctx, func(r *record) { r.events.route = pattern })
}

// Unauthorized counts a 401 from Mimecast by its reason.
func (t *Telemetry) Unauthorized(_ context.Context, reason event.UnauthorizedReason) {
	t.metrics.unauthorized.WithLabelValues(string(reason)).Inc()
}

// Retried counts the outcome of a 401.
func (t *Telemetry) Retried(ctx context.Context, outcome event.RetryOutcome) {
	t.metrics.retries.WithLabelValues(string(outcome)).Inc()
	withRecord(ctx, func(r *record) { r.events.resent = r.events.resent || outcome.Resent() })
	t.recent.addRetry(outcome)
}

// Sent records when a request is sent to Mimecast.
func (t *Telemetry) Sent(ctx context.Context, at time.Time) {
	withRecord(ctx, func(r *record) { r.events.sent = at })
}

// Answered records a response from Mimecast, and the time until its headers.
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

// addAttempt adds up the times that the proxy waited for its peers. The rest of the
// request's time is the proxy's own.
func (r *record) addAttempt(status int, now time.Time, took time.Duration) {
	sent := now.Add(-took)
	switch {
	case r.events.attempts == 0 && !r.start.Add(time.Duration(r.body.last.Load())).After(sent):
		r.events.clientWait += time.Duration(r.body.clientWait.Load())
	case !r.events.limited.IsZero():
		r.events.clientWait += max(0, sent.Sub(r.events.limited))
	}
	if !r.events.sent.IsZero() { // otherwise the response is from the host of batch files
		r.events.answered = now
	}
	r.events.limited, r.events.sent = time.Time{}, time.Time{}
	if status == http.StatusTooManyRequests {
		r.events.limited = now
	}
	r.events.attempts++
	r.events.upstream += took
}

// Failed records the error response that the proxy sent.
func (t *Telemetry) Failed(ctx context.Context, p *problem.Problem) {
	text := t.scrub(p.Error())
	withRecord(ctx, func(r *record) {
		r.events.code, r.events.failure = p.Code, text
		if p.Limit != "" {
			r.events.limit, r.events.owner = p.Limit, p.LimitOwner
		}
	})
}

// RateLimitWait counts the outcome of holding a request after 429.
func (t *Telemetry) RateLimitWait(_ context.Context, outcome event.HoldOutcome) {
	t.metrics.waits.WithLabelValues(string(outcome)).Inc()
}

// ReplayBytes adds delta bytes to the total size of kept request bodies.
func (t *Telemetry) ReplayBytes(delta int64) { t.metrics.replay.Add(float64(delta)) }
