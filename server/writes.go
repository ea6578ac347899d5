package server

import (
	"net/http"
	"time"
)

// BoundWrites returns a handler whose client may take at most so long to accept one write
// of a response over HTTP/2. There a client that grants no window blocks the handler,
// and the connection's deadline does not see it. 0: as long as it likes.
func BoundWrites(timeout time.Duration, next http.Handler) http.Handler {
	if timeout <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor < 2 {
			next.ServeHTTP(w, r)
			return
		}
		bound := &boundWriter{w, http.NewResponseController(w), timeout}
		next.ServeHTTP(bound, r)
		bound.begin() // net/http writes what is left
	})
}

type boundWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// Write implements http.ResponseWriter.
func (w *boundWriter) Write(b []byte) (int, error) {
	w.begin()
	defer w.end()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (w *boundWriter) FlushError() error {
	w.begin()
	defer w.end()
	return w.control.Flush()
}

// begin and end bound what is between them. A deadline that passes in a pause between two
// writes would end the stream.
func (w *boundWriter) begin() { _ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) }
func (w *boundWriter) end()   { _ = w.control.SetWriteDeadline(time.Time{}) }

// Unwrap is for http.ResponseController.
func (w *boundWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
