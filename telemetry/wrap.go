package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

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
		path:    truncate(t.redactor.Redact(r.URL.EscapedPath()), maxPath),
		client:  peerHost(r.RemoteAddr),
		trace:   t.redactor.Redact(traceID(r.Header["Traceparent"])),
	}
	rec.responseWriter.ResponseWriter, rec.responseWriter.request, rec.responseWriter.id = w, r.Context(), rec.id
	rec.body.start = now
	return rec
}

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

// end observes a request. why is what the handler panicked with, or nil.
func (t *Telemetry) end(rec *record, recovered any) {
	defer t.inFlight.Add(-1) // last: who sees none in flight sees all counted
	o := t.outcome(rec, recovered)
	o.fault = o.classify()
	t.metrics.observe(rec.method, &o)
	t.recent.addRequest(rec, &o)
	if o.rejected() {
		last := o // o itself is on the stack
		t.accessRejected(rec, &last)
		return
	}
	t.writeAccess(rec, &o, 0)
}

// rejected reports whether the guard rejected the request.
func (o *outcome) rejected() bool { return o.fault != "" && kinds[o.fault.Index()].Rejection }

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

// leftByClient reports whether the client ended the request. The proxy gives a
// cause of its own where it does.
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

// writeAccess writes the line of a request, which stands for so many others too.
func (t *Telemetry) writeAccess(rec *record, o *outcome, suppressed int) {
	level := zerolog.InfoLevel
	switch {
	case o.panicked:
		level = zerolog.ErrorLevel
	case o.aborted == event.AbortedByUpstream, o.failure != "" && o.status >= http.StatusInternalServerError:
		level = zerolog.WarnLevel
	}
	e := t.log.WithLevel(level)
	if e == nil {
		return
	}
	var buf [len(timeLayout) + 8]byte
	e.Bytes(timeField, rec.start.Add(o.took).UTC().AppendFormat(buf[:0], timeLayout)).
		Str(t.msgField, "request").
		Str("request_id", rec.id).
		Str("method", rec.method).
		Str("path", rec.path).
		Int("status", o.status).
		Float64("duration_ms", milliseconds(o.took)).
		Int64("bytes_in", o.in).
		Int64("bytes_out", o.out).
		Float64("upstream_ms", milliseconds(o.upstream)).
		Bool("retried", o.retried()).
		Str("client", rec.client)
	optional(e, "error", o.explanation())
	optional(e, "route", o.route)
	optional(e, "trace_id", rec.trace)
	optional(e, "mimecast_request_id", o.mimecast)
	optional(e, "aborted", string(o.aborted))
	if suppressed > 0 {
		e.Int("suppressed", suppressed)
	}
	e.Send()
}

func optional(e *zerolog.Event, field, value string) {
	if value != "" {
		e.Str(field, value)
	}
}

// retried reports whether the request was sent to Mimecast more than once.
func (o *outcome) retried() bool { return o.resent || o.attempts > 1 }

// explanation is the text for the log; it may be empty.
func (o *outcome) explanation() string {
	switch {
	case o.failure != "":
		return o.failure
	case o.denied != "" && o.passed:
		return string(o.denied) + ": let through, since PROXY_ALLOW_MODE=report"
	case o.fault != "":
		return explanations[o.fault.Index()]
	default:
		return ""
	}
}

// milliseconds returns d with three decimals at the most.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// requestID returns the client's own, or a new one where that cannot be used.
func (t *Telemetry) requestID(r *http.Request) string {
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && isValidID(ids[0]) && t.redactor.Redact(ids[0]) == ids[0] {
		return ids[0]
	}
	return newRequestID()
}

func newRequestID() string {
	var raw [8]byte
	var text [16]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64())
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// isValidID reports whether s can be an id: short, and of visible ASCII.
func isValidID(s string) bool {
	return s != "" && len(s) <= maxID && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// peerHost returns an address without its port; "unix" for a peer on a socket.
func peerHost(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "unix"
	}
	return strings.Trim(address[:i], "[]")
}

// traceID returns the trace id of a valid traceparent header (W3C Trace
// Context, section 3.2), or nothing.
func traceID(headers []string) string {
	const length = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(headers) != 1 || len(headers[0]) < length {
		return ""
	}
	h := headers[0]
	version, trace, parent, flags := h[:2], h[3:35], h[36:52], h[53:55]
	switch {
	case h[2] != '-' || h[35] != '-' || h[52] != '-',
		version == "ff", version == "00" && len(h) > length, len(h) > length && h[length] != '-',
		!isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(flags),
		strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "":
		return ""
	}
	return trace
}

// isHex reports whether s is of lower-case hexadecimal digits.
func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}
