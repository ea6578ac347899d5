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
	// maxPath, maxMethod and maxID limit texts that a client chooses, in bytes.
	maxPath   = 1024
	maxMethod = 32
	maxID     = 128
)

// statusClientGone is the logged status if the client disconnected before the response.
var statusClientGone = event.ClientGone.Status()

// Wrap returns next with every request counted, logged and kept, even if the handler
// panics. It must be the outermost handler.
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

// visiblePath returns the path of a request, without the seal of a batch file's URL.
// Anyone with the seal and a key may download the file.
func visiblePath(u *url.URL) string {
	if strings.HasPrefix(strings.ToLower(u.Path), batchPath) {
		return batchPath + "…"
	}
	return u.EscapedPath()
}

// batchPath is the path prefix of the batch relay.
const batchPath = "/batch/"

// outcome is how a request ended.
type outcome struct {
	events
	status    int
	took      time.Duration
	proxyTime time.Duration // time until the response began, without the proxy's waits
	in, out   int64
	aborted   event.AbortedBy // empty if nothing was aborted
	panicked  bool
	fault     event.Code // empty if nothing failed
}

// end records the outcome of a request. recovered is the handler's panic, or nil.
func (t *Telemetry) end(rec *record, recovered any) {
	defer t.inFlight.Add(-1) // last, so that all requests are counted once none is in flight
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

// limitOwner returns the owner of the limit that the request exceeds. It is empty if
// there is no limit or it is the proxy's.
func (o *outcome) limitOwner() event.Component {
	if o.fault != event.TooBusy {
		return ""
	}
	return o.owner
}

// component returns the component responsible for the failure.
func (o *outcome) component() event.Component {
	return cmp.Or(o.limitOwner(), kinds[o.fault.Index()].Component)
}

// faultRow returns the row that counts the fault.
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
		o.out = 0 // net/http accepts a body but does not send it
	}
	if isPanic(recovered) {
		o.panicked = true
		o.failure = t.scrub("panic: " + fmt.Sprint(recovered))
	}
	o.aborted = rec.abortedBy(recovered, o.panicked)
	if w.afterDisconnect && o.denied == "" && !o.panicked && o.code != event.BadRequestBody && rec.leftByClient() {
		// The client got no response, unless it only closed its half of the connection
		// while sending the body.
		o.status, o.aborted = statusClientGone, event.AbortedByClient
	}
	if o.status == 0 {
		o.status = impliedStatus(recovered, o.aborted)
		w.responseStart = now
	}
	o.proxyTime = max(0, w.responseStart.Sub(rec.start)-o.upstream-o.clientWait)
	return o
}

// abortedBy returns who cut the response short; empty if it was complete. A client may
// disconnect without cutting it, after reading all it needs.
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

// leftByClient reports whether the client canceled the request. If the proxy canceled
// it, the cause is not context.Canceled.
func (rec *record) leftByClient() bool { return errors.Is(context.Cause(rec), context.Canceled) }

// impliedStatus returns the status of a response that never began.
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
