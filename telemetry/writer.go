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

// responseWriter records the response. It ignores 1xx responses, since a final response
// follows them.
//
// Only the handler uses it. Other goroutines call at most WriteHeader with a 1xx
// status, which does not change it.
type responseWriter struct {
	http.ResponseWriter
	request         context.Context
	id              string    // request ID, for the proxy's own error responses
	status          int       // 0 until the response begins
	responseStart   time.Time // when the response began
	afterDisconnect bool      // whether the request's context had ended by then
	bytes           int64     // bytes of the body
	err             error     // first write error
}

// WriteHeader implements http.ResponseWriter. 101 is a final response, since HTTP ends
// with it.
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

// Write implements http.ResponseWriter. It counts the bytes accepted.
func (w *responseWriter) Write(b []byte) (int, error) {
	w.startResponse(http.StatusOK)
	n, err := w.ResponseWriter.Write(b)
	w.countWritten(int64(n), err)
	return n, err
}

// ReadFrom implements io.ReaderFrom, so that net/http can copy from a file or socket
// without another buffer.
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
	// A body that is not allowed, or is longer than announced, is a handler's mistake
	// and not a connection error.
	if err != nil && w.err == nil && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrContentLength) {
		w.err = err
	}
}

// FlushError is called by http.ResponseController.
func (w *responseWriter) FlushError() error {
	w.startResponse(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher, for handlers that do not use http.ResponseController.
func (w *responseWriter) Flush() { _ = w.FlushError() }

// Hijack implements http.Hijacker. A hijacked connection counts as status 101.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.startResponse(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is called by http.ResponseController.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countingBody counts the bytes of a request body, and the time that the client took to
// send them. Its counters can be read after the handler has returned.
type countingBody struct {
	io.ReadCloser
	start time.Time // when the request began
	bytes atomic.Int64
	// clientWait is the total time spent in Read. last is the end of the last Read, as
	// a time since start. Both are in nanoseconds.
	clientWait, last atomic.Int64
	reading          atomic.Bool // whether the proxy waits in Read
}

// Read implements io.Reader. It counts bytes and time.
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
