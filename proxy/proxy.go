// Package proxy sends an allowed request on to Mimecast and the response back:
// httputil.ReverseProxy over the layers [Replay] and [Authenticate]. That of package quota
// is between them.
//
// A client's request is stripped of every header that could speak for the client or
// for the proxy. Path, query and body pass byte for byte, and so does the response. A
// body up to the replay limit is read whole before it is sent; larger ones stream, and
// so do responses.
package proxy

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// Options say how requests are sent on.
type Options struct {
	// Transport carries the requests: a chain such as [Replay] and [Authenticate].
	Transport http.RoundTripper
	Trace     Trace
	// ErrorLog gets ReverseProxy's messages; nil means the standard logger.
	ErrorLog *log.Logger
}

// New returns the handler. Each request goes to the account that its context has:
// see [account.NewContext].
func New(o Options) http.Handler {
	buffers := newBuffers()
	return &forwarder{buffers, &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      o.Transport,
		FlushInterval:  flushInterval,
		BufferPool:     buffers,
		ErrorLog:       o.ErrorLog,
		ModifyResponse: modifyResponse,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p := explain(r.Context(), err)
			if f, ok := w.(responseFilter); ok && p.Code == event.ClientGone && f.body != nil && f.body.cutShort() {
				p = explain(r.Context(), &ClientBodyError{io.ErrUnexpectedEOF})
			}
			p = respond(w, r, p)
			if o.Trace.Failed != nil {
				o.Trace.Failed(r.Context(), p)
			}
		},
	}}
}

// rewrite turns the client's request into the one for Mimecast.
func rewrite(r *httputil.ProxyRequest) {
	setTarget(r.Out, account.Of(r.In.Context()).BaseURL, r.In)
	strip(r.Out.Header)
	hideIdempotency(r.Out.Header)
	if left, ok := forwards(r.In); ok {
		r.Out.Header.Set("Max-Forwards", strconv.Itoa(left-1))
	}
	// A client's trailers arrive after all checks are made, and Mimecast reads none:
	// RFC 9110, section 6.5.1, lets them go.
	r.Out.Trailer = nil
	if r.Out.Body != nil { // ReverseProxy wraps it, and Replay needs what it is
		r.Out.Body = r.In.Body
	}
}

// forwarder prepares a request and its response for ReverseProxy.
type forwarder struct {
	buffers *buffers
	next    *httputil.ReverseProxy
}

// ServeHTTP lets a response begin while the request's body is still being sent, as an
// upstream may: by default net/http reads and drops the rest of a body as soon as a
// response is begun.
func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if left, ok := forwards(r); ok && left == 0 {
		w.Header().Set(problem.StatusHeader, "mimecast-proxy")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	out := responseFilter{ResponseWriter: w, http10: !r.ProtoAtLeast(1, 1)}
	if r.ContentLength != 0 {
		// The writer of HTTP/2 returns an error, but is in full duplex anyway.
		_ = http.NewResponseController(w).EnableFullDuplex()
		out.body = newClientBody(r.Body, f.buffers)
		defer out.body.end(w)
		// A copy, since net/http looks at its own request's body later.
		r = r.WithContext(r.Context())
		r.Body = out.body
	}
	next := f.next
	if r.ProtoMajor > 1 {
		own := *next
		out.loan = &loan{buffers: f.buffers}
		own.BufferPool, next = out.loan, &own
	}
	defer flushOnAbort(out)
	next.ServeHTTP(out, r)
}

// flushOnAbort sends the part of a response that exists before a panic breaks it off,
// so that the client sees a response cut short, and not none.
func flushOnAbort(w http.ResponseWriter) {
	why := recover()
	if err, ok := why.(error); ok && errors.Is(err, http.ErrAbortHandler) { // ReverseProxy's, once the header is written
		_ = http.NewResponseController(w).Flush() // the client may be gone
	}
	if why != nil {
		panic(why)
	}
}

// respond sends an error response, and returns the error for the log. A client whose
// body ended early has closed its connection, or its half alone. The response goes out
// in two writes: the second fails if the whole connection is closed.
func respond(w http.ResponseWriter, r *http.Request, p *problem.Problem) *problem.Problem {
	if p.Code != event.BadRequestBody || r.Context().Err() == nil {
		p.ServeHTTP(w, r)
		return p
	}
	p.ServeHTTP(flushedHeader{w}, r)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return problem.New(event.ClientGone, "the client went away within its body").Because(err)
	}
	return p
}

// flushedHeader sends the header of a response at once.
type flushedHeader struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w flushedHeader) WriteHeader(status int) {
	w.ResponseWriter.WriteHeader(status)
	_ = http.NewResponseController(w.ResponseWriter).Flush() // if it fails, so does the next write
}

// flushInterval is how long a response that trickles in may wait to go out. To
// flush each write would double the writes of a short response, which most are.
const flushInterval = 5 * time.Millisecond

// forwards returns how many more times an OPTIONS may be forwarded, if it says
// so (RFC 9110, section 7.6.2).
func forwards(r *http.Request) (left int, ok bool) {
	if r.Method != http.MethodOptions {
		return 0, false
	}
	left, err := strconv.Atoi(r.Header.Get("Max-Forwards"))
	return left, err == nil && left >= 0
}

// responseFilter withholds what a client must not get. One is the upstream's 100
// Continue, which is for the Transport (RFC 9110, section 15.2): the server sends its
// own to a client that asked, when its body is first read. Other interim responses lose
// the same headers as the response.
type responseFilter struct {
	http.ResponseWriter
	body   *clientBody // nil if there is none
	http10 bool        // the client's protocol knows no interim responses
	loan   *loan       // nil if nothing is sent after Write has returned
}

// Write implements http.ResponseWriter.
func (w responseFilter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	if err != nil && w.loan != nil {
		w.loan.failed = true
	}
	return n, err
}

// WriteHeader makes a response that comes before the body's end the connection's
// last: net/http finds that end only once the handler has returned, and then
// reads the next request from two goroutines, which panics.
func (w responseFilter) WriteHeader(status int) {
	h := w.Header()
	switch {
	case status == http.StatusContinue, status < http.StatusOK && w.http10:
		return
	case status < http.StatusOK:
		withhold(h)
	case w.body != nil && !w.body.ended.Load():
		h.Set("Connection", "close")
	}
	if _, ok := h["Content-Type"]; !ok && status >= http.StatusOK {
		h["Content-Type"] = nil // or net/http makes one up
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w responseFilter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// errStatus is for a status from Mimecast that no HTTP client can use.
var errStatus = errors.New("unusable status")

func modifyResponse(res *http.Response) error {
	if res.StatusCode < http.StatusOK || res.StatusCode > 999 { // 101 too: no upgrade was asked for
		return fmt.Errorf("%w %d", errStatus, res.StatusCode)
	}
	withhold(res.Header)
	withhold(res.Trailer)
	res.Body = &trailerFilter{res.Body, res}
	if len(res.Trailer) > 0 {
		// HTTP/2 can send a length and trailers, HTTP/1.1 only one of them.
		res.Header.Del("Content-Length")
	}
	// Of an unknown length ReverseProxy would flush each write. It looks at the
	// length for nothing else.
	res.ContentLength = 0
	upstream := account.Of(res.Request.Context()).BaseURL
	for i, location := range res.Header["Location"] {
		res.Header["Location"][i] = rewriteLocation(location, upstream, res.Request)
	}
	return nil
}

// trailerFilter withholds from the trailers, which are there once the body was read.
type trailerFilter struct {
	io.ReadCloser
	res *http.Response
}

func (t *trailerFilter) Close() error {
	defer withhold(t.res.Trailer)
	return t.ReadCloser.Close()
}
