package telemetry

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"mimecast-proxy/problem"
)

// responseWriter notes what is sent. A 1xx response is not the response: one of those
// follows it.
//
// Only the handler uses it. Other goroutines call at most WriteHeader with a 1xx status,
// which changes nothing.
type responseWriter struct {
	http.ResponseWriter
	request         context.Context
	id              string    // of the request, for the proxy's own error responses
	status          int       // 0 until the response begins
	responseStart   time.Time // when it did
	afterDisconnect bool      // whether the request had ended by then
	bytes           int64     // of the body
	err             error     // the first that writing met
}

// WriteHeader notes the status. 101 is a final response, the last one in HTTP.
func (w *responseWriter) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.startResponse(status)
	}
	if h := w.Header(); h.Get(problem.Header) != "" {
		h.Set("X-Request-Id", w.id)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) startResponse(status int) {
	if w.status == 0 {
		w.status, w.responseStart, w.afterDisconnect = status, time.Now(), w.request.Err() != nil
	}
}

// Write counts what was taken.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.startResponse(http.StatusOK)
	n, err := w.ResponseWriter.Write(b)
	w.countWritten(int64(n), err)
	return n, err
}

// ReadFrom keeps net/http's way of copying from a file or a socket without a
// buffer of ours in between.
func (w *responseWriter) ReadFrom(src io.Reader) (n int64, err error) {
	w.startResponse(http.StatusOK)
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
	}
	w.countWritten(n, err)
	return n, err
}

func (w *responseWriter) countWritten(n int64, err error) {
	w.bytes += n
	// A response that may not have a body, or has more than it announced, is a
	// mistake of the handler, not a fault of the connection.
	if err != nil && w.err == nil && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrContentLength) {
		w.err = err
	}
}

// FlushError is what http.ResponseController calls.
func (w *responseWriter) FlushError() error {
	w.startResponse(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher, for handlers that know no better.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// Hijack notes that the connection has left HTTP.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.startResponse(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countingBody counts the bytes of a request's body, and how long the client took to
// send them. It may be read after the handler has returned.
type countingBody struct {
	io.ReadCloser
	start time.Time // of the request
	bytes atomic.Int64
	// clientWait is the time spent in Read; last is when the last Read ended, as a
	// time since start. Both are in nanoseconds.
	clientWait, last atomic.Int64
	reading          atomic.Bool // whether the proxy waits for the client
}

// Read counts.
func (r *countingBody) Read(b []byte) (int, error) {
	from := time.Since(r.start)
	r.reading.Store(true)
	n, err := r.ReadCloser.Read(b)
	r.reading.Store(false)
	to := time.Since(r.start)
	r.bytes.Add(int64(n))
	r.clientWait.Add(int64(to - from))
	r.last.Store(int64(to))
	return n, err
}
