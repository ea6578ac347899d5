package simulator

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// gatewayHeaders adds the headers that were observed on every response of API 2.0. A
// gateway behind a load balancer sends them.
func gatewayHeaders(h http.Header) {
	h.Set("X-Request-Id", newUUID())
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Robots-Tag", "noindex, nofollow")
	h.Set("Via", "1.1 google")
	h.Set("Alt-Svc", `h3=":443"; ma=2592000,h3-29=":443"; ma=2592000`)
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// object is a JSON object. Its members are encoded in sorted order.
type object = map[string]any

// failEnvelope returns the gateway's error envelope. The status shows that it is an error.
func failEnvelope(code, message string) object {
	return object{"fail": []object{{"code": code, "message": message}}}
}

// reject responds as the gateway does before a function runs.
//
// It reads the body first if the client is sending it: over HTTP/1.1, closing the
// connection early would lose the response. Clients that wait for 100 Continue send no
// body yet, and HTTP/2 can stop it.
func (s *Simulator) reject(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	if r.ProtoMajor == 1 && r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, r.Body) // the client may have disconnected
	}
	s.respond(w, r, status, failEnvelope(code, message))
}

// respond responds with v as JSON, compressed if the client accepts it. As observed, there
// is no Content-Length.
func (s *Simulator) respond(w http.ResponseWriter, r *http.Request, status int, v any) {
	body := encode(v)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if s.opts.GzipMin >= 0 && len(body) >= s.opts.GzipMin && acceptsGzip(r.Header) {
		h.Set("Content-Encoding", "gzip")
		body = compress(body)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have disconnected
	_ = http.NewResponseController(w).Flush()
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // every value here can be encoded
		panic(err)
	}
	return b.Bytes()
}

func acceptsGzip(h http.Header) bool {
	for item := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, q, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(item), " ", ""), ";")
		if coding == "gzip" || coding == "*" {
			return strings.Trim(strings.TrimPrefix(q, "q="), "0.") != "" || !strings.HasPrefix(q, "q=")
		}
	}
	return false
}

// compressors reuses gzip writers, which take almost 1 MB each.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z := compressors.Get().(*gzip.Writer)
	defer compressors.Put(z)
	z.Reset(&b)
	_, _ = z.Write(body) // a bytes.Buffer never fails
	_ = z.Close()
	return b.Bytes()
}
