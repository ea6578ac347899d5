package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mimecast-proxy/event"
)

const (
	// maxPath, maxMethod and maxID bound what a client chooses.
	maxPath   = 1024
	maxMethod = 32
	maxID     = 128
)

// statusClientGone is logged if the client left before the response.
var statusClientGone = event.ClientGone.Status()

// Wrap returns next with every request counted, logged and remembered, those
// among them that end in a panic. It belongs outermost.
func (t *Telemetry) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := t.newRecord(w, r)
		defer func() {
			recovered := recover()
			t.logPanic(recovered, rec.id)
			t.end(rec, recovered)
			if recovered != nil {
				panic(http.ErrAbortHandler)
			}
		}()
		r = r.WithContext(rec)
		if r.Body != nil && r.Body != http.NoBody {
			rec.body.ReadCloser = r.Body
			r.Body = &rec.body
		}
		next.ServeHTTP(&rec.responseWriter, r)
	})
}

func (t *Telemetry) newRecord(w http.ResponseWriter, r *http.Request) *record {
	now := time.Now()
	if t.inFlight.Add(1) == 1 {
		t.busySince.Store(now.UnixNano())
	}
	rec := &record{
		Context: r.Context(),
		start:   now,
		id:      t.requestID(r),
		method:  truncate(t.redactor.Redact(r.Method), maxMethod),
		path:    truncate(t.redactor.Redact(visiblePath(r.URL)), maxPath),
		peer:    peerHost(r.RemoteAddr),
		trace:   t.redactor.Redact(traceID(r.Header["Traceparent"])),
	}
	rec.responseWriter.ResponseWriter, rec.responseWriter.request, rec.responseWriter.id = w, r.Context(), rec.id
	rec.body.start = now
	t.inFlightList.add(rec)
	return rec
}

// visiblePath returns the path of a request, without what seals the URL of a batch file:
// a caller who knows that, and a key, may download the file.
func visiblePath(u *url.URL) string {
	if strings.HasPrefix(strings.ToLower(u.Path), batchPath) {
		return batchPath + "…"
	}
	return u.EscapedPath()
}

// batchPath is where the batch relay is.
const batchPath = "/batch/"

// outcome is how a request ended.
type outcome struct {
	events
	status    int
	took      time.Duration
	proxyTime time.Duration // until the response began, less what the proxy waited for
	in, out   int64
	aborted   event.AbortedBy // empty for none
	panicked  bool
	fault     event.Code // what went wrong; empty for nothing
}

// end observes a request. recovered is what the handler panicked with, or nil.
func (t *Telemetry) end(rec *record, recovered any) {
	defer t.inFlight.Add(-1) // last: if none is in flight, all are counted
	o := t.outcome(rec, recovered)
	o.fault = o.classify()
	t.metrics.observe(rec.method, &o)
	t.recent.addRequest(rec, &o)
	t.inFlightList.remove(rec)
	t.ended(rec, &o)
	if o.rejected() {
		last := o // o itself is on the stack
		t.accessRejected(rec, &last)
		return
	}
	t.writeAccess(rec, &o, 0)
}

// rejected reports whether the guard rejected the request.
func (o *outcome) rejected() bool { return o.fault != "" && kinds[o.fault.Index()].Rejection }

// limitOwner returns whose limit the request exceeds, if it does and it is not the proxy's.
func (o *outcome) limitOwner() event.Component {
	if o.fault != event.TooBusy {
		return ""
	}
	return o.owner
}

// component returns where to look for what went wrong.
func (o *outcome) component() event.Component {
	return cmp.Or(o.limitOwner(), kinds[o.fault.Index()].Component)
}

// faultRow returns where the fault is counted.
func (o *outcome) faultRow() int {
	switch o.limitOwner() { //nolint:exhaustive // the others have no row of their own
	case event.ComponentClient:
		return clientLimitRow
	case event.ComponentMimecast:
		return mimecastLimitRow
	default:
		return o.fault.Index()
	}
}

func (t *Telemetry) outcome(rec *record, recovered any) outcome {
	rec.mu.Lock()
	o := outcome{events: rec.events}
	rec.mu.Unlock()
	w := &rec.responseWriter
	now := time.Now()
	o.took = now.Sub(rec.start)
	o.status, o.in, o.out = w.status, rec.body.bytes.Load(), w.bytes
	if rec.method == http.MethodHead {
		o.out = 0 // net/http takes a body and sends none
	}
	if isPanic(recovered) {
		o.panicked = true
		o.failure = t.scrub("panic: " + fmt.Sprint(recovered))
	}
	o.aborted = rec.abortedBy(recovered, o.panicked)
	if w.afterDisconnect && o.denied == "" && !o.panicked && o.code != event.BadRequestBody && rec.leftByClient() {
		// Nobody got the response, but for a client that closed its half of the
		// connection within the body.
		o.status, o.aborted = statusClientGone, event.AbortedByClient
	}
	if o.status == 0 {
		o.status = impliedStatus(recovered, o.aborted)
		w.responseStart = now
	}
	o.proxyTime = max(0, w.responseStart.Sub(rec.start)-o.upstream-o.clientWait)
	return o
}

// abortedBy says who cut the response short, if it was cut. A client that is gone did
// not necessarily do so: it may have read all that it wanted.
func (rec *record) abortedBy(recovered any, panicked bool) event.AbortedBy {
	gone := rec.Err() != nil
	switch {
	case panicked:
		return event.AbortedByProxy
	case gone && (rec.responseWriter.status == statusClientGone || rec.responseWriter.err != nil):
		return event.AbortedByClient
	case recovered == nil:
		return ""
	case gone && !rec.leftByClient():
		return event.AbortedByProxy
	case gone:
		return event.AbortedByClient
	default:
		return event.AbortedByUpstream
	}
}

// leftByClient reports whether the client ended the request. If the proxy did, the cause
// is another one.
func (rec *record) leftByClient() bool { return errors.Is(context.Cause(rec), context.Canceled) }

// impliedStatus is for a response that never began.
func impliedStatus(recovered any, aborted event.AbortedBy) int {
	switch {
	case recovered == nil:
		return http.StatusOK // net/http sends it
	case aborted == event.AbortedByClient:
		return statusClientGone
	default:
		return http.StatusInternalServerError
	}
}
