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

// writer notes what is answered. Unlike most of its kind it takes a 1xx answer
// for what it is: a word before the answer.
//
// It is used by the handler alone; of its methods only WriteHeader with a 1xx
// status, which changes nothing, is ever called from elsewhere.
type writer struct {
	http.ResponseWriter
	request context.Context
	id      string    // of the request, for the proxy's own error responses
	status  int       // 0 until the answer begins
	begun   time.Time // when it did
	late    bool      // whether the request had ended by then
	bytes   int64     // of the body
	err     error     // the first that writing met
}

// WriteHeader notes the status. 101 is an answer, the last one in HTTP.
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.begin(status)
	}
	if h := w.Header(); h.Get(problem.Header) != "" {
		h.Set("X-Request-Id", w.id)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) begin(status int) {
	if w.status == 0 {
		w.status, w.begun, w.late = status, time.Now(), w.request.Err() != nil
	}
}

// Write counts what was taken.
func (w *writer) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	n, err := w.ResponseWriter.Write(b)
	w.note(int64(n), err)
	return n, err
}

// ReadFrom keeps net/http's way of copying from a file or a socket without a
// buffer of ours in between.
func (w *writer) ReadFrom(src io.Reader) (n int64, err error) {
	w.begin(http.StatusOK)
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(src)
	} else {
		n, err = io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
	}
	w.note(n, err)
	return n, err
}

func (w *writer) note(n int64, err error) {
	w.bytes += n
	// An answer without a body, or with more body than it announced, is the
	// handler's affair and not the connection's.
	if err != nil && w.err == nil && !errors.Is(err, http.ErrBodyNotAllowed) && !errors.Is(err, http.ErrContentLength) {
		w.err = err
	}
}

// FlushError is what http.ResponseController calls.
func (w *writer) FlushError() error {
	w.begin(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements http.Flusher, for handlers that know no better.
func (w *writer) Flush() { _ = w.FlushError() }

// Hijack notes that the connection has left HTTP.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.begin(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// reader counts the bytes of a request's body, and how long the client took to
// send them. It is read by whoever sends the body on, perhaps after the
// handler has returned.
type reader struct {
	io.ReadCloser
	began time.Time // of the request
	bytes atomic.Int64
	// waited is the time spent in Read; last is when the last Read ended, as a
	// time since began. Both are in nanoseconds.
	waited, last atomic.Int64
}

// Read counts.
func (r *reader) Read(b []byte) (int, error) {
	from := time.Since(r.began)
	n, err := r.ReadCloser.Read(b)
	to := time.Since(r.began)
	r.bytes.Add(int64(n))
	r.waited.Add(int64(to - from))
	r.last.Store(int64(to))
	return n, err
}
