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
		if r.ProtoMajor >= 2 {
			w = &boundWriter{w, http.NewResponseController(w), timeout}
		}
		next.ServeHTTP(w, r)
	})
}

type boundWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// Write implements http.ResponseWriter.
func (w *boundWriter) Write(b []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (w *boundWriter) FlushError() error {
	w.extend()
	return w.control.Flush()
}

func (w *boundWriter) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // a stream has one
}

// Unwrap is for http.ResponseController.
func (w *boundWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
