package problem

import (
	"bytes"
	"fmt"
	"net/http"
)

// Wire returns the whole HTTP/1.1 response, with Connection: close. It is for requests
// that never become an [http.Request]. id is the log's request ID; if it is empty, the
// response has no X-Request-Id.
func (p *Problem) Wire(id string) []byte {
	w := wireWriter{header: http.Header{"Connection": {"close"}}}
	if id != "" {
		w.header.Set("X-Request-Id", id)
	}
	p.ServeHTTP(&w, &http.Request{})
	return w.text.Bytes()
}

// wireWriter is a ResponseWriter that buffers the response.
type wireWriter struct {
	header http.Header
	text   bytes.Buffer
}

func (w *wireWriter) Header() http.Header { return w.header }

func (w *wireWriter) WriteHeader(status int) {
	fmt.Fprintf(&w.text, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = w.header.Write(&w.text) // a buffer never fails
	w.text.WriteString("\r\n")
}

func (w *wireWriter) Write(b []byte) (int, error) { return w.text.Write(b) }
