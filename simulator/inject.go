package simulator

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxEchoedBody is how much of a request's body a fault can echo, in bytes.
const maxEchoedBody = 64 << 10

// injectFault applies f to a request.
func (s *Simulator) injectFault(f Fault, w http.ResponseWriter, r *http.Request) {
	if f.Cut == CutRequest {
		abort(r)
	}
	var body bytes.Buffer
	if f.Status != 0 && !f.Early {
		_, _ = io.CopyN(&body, r.Body, maxEchoedBody)
		_, _ = io.Copy(io.Discard, r.Body) // if the body breaks off, so does the response
	}
	f = f.expand(r.Host, body.String())
	f.hint(w)
	if f.Early {
		// Without full duplex, the HTTP/1.1 server reads the body before it responds.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	out := &faultWriter{ResponseWriter: w, request: r, fault: f}
	if f.Status == 0 {
		s.dispatch(out, r.WithContext(context.WithValue(r.Context(), faultKey{}, f)))
	} else {
		f.writeResponse(out)
	}
	out.finish()
}

// hint sends a 103 response. Its header is not part of the final response's.
func (f Fault) hint(w http.ResponseWriter) {
	if len(f.Hints) == 0 {
		return
	}
	for name, v := range f.Hints {
		w.Header().Set(name, v)
	}
	w.WriteHeader(http.StatusEarlyHints)
	for name := range f.Hints {
		w.Header().Del(name)
	}
}

// writeResponse sends the fault's response in place of the function's.
func (f Fault) writeResponse(w http.ResponseWriter) {
	body, kind := []byte(f.Body), "application/json"
	if f.Body == "" && f.Status >= 400 {
		body = f.envelope()
	}
	if strings.HasPrefix(f.Body, "<") {
		kind = "text/html; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(f.Status)
	if _, err := w.Write(body); err != nil {
		return
	}
	pad := bytes.Repeat([]byte(" "), 8<<10)
	for n := int64(len(body)); f.Size == Endless || n < f.Size; {
		piece := pad
		if f.Size != Endless {
			piece = pad[:min(int64(len(pad)), f.Size-n)]
		}
		k, err := w.Write(piece)
		if n += int64(k); err != nil {
			return // the client disconnected
		}
	}
	_ = http.NewResponseController(w).Flush()
}

var padding = regexp.MustCompile(`\{pad:(\d{1,8})\}`)

// expand replaces {host}, {body} and {pad:N} in the fault's texts.
func (f Fault) expand(host, body string) Fault {
	expand := func(text string) string {
		if !strings.Contains(text, "{") {
			return text
		}
		text = padding.ReplaceAllStringFunc(text, func(m string) string {
			n, _ := strconv.Atoi(padding.FindStringSubmatch(m)[1]) // the pattern matches only digits
			return strings.Repeat("x", n)
		})
		return strings.NewReplacer("{host}", host, "{body}", body).Replace(text)
	}
	all := func(m map[string]string) map[string]string {
		filled := make(map[string]string, len(m))
		for name, v := range m {
			filled[name] = expand(v)
		}
		return filled
	}
	f.Body, f.Message = expand(f.Body), expand(f.Message)
	f.Header, f.Hints, f.Trailer = all(f.Header), all(f.Hints), all(f.Trailer)
	return f
}

type connKey struct{}

// contextWithConn is an http.Server's ConnContext. It makes the connection available to
// abort.
func contextWithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// abort aborts a request. Over HTTP/1.1 it resets the connection, if known, instead of
// closing it.
func abort(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.ProtoMajor == 1 {
		reset(c)
	}
	panic(http.ErrAbortHandler)
}

func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // closing the TLS connection would send close_notify first
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // on failure, the close is not a reset
	}
	_ = c.Close() // it may be closed already
}

// faultWriter applies a fault to a response as it is written.
type faultWriter struct {
	http.ResponseWriter
	request    *http.Request
	fault      Fault
	headerSent bool
	sent       int64 // bytes of the body
}

func (s *faultWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *faultWriter) WriteHeader(status int) {
	if s.headerSent || status < 200 {
		return
	}
	s.headerSent = true
	f, h := s.fault, s.Header()
	if !s.wait(f.Delay) || !s.waitUntil(f.Until) {
		abort(s.request)
	}
	if f.Cut == CutAnswer {
		abort(s.request)
	}
	for name, v := range f.Header {
		h.Set(name, v)
	}
	for name := range f.Trailer {
		h.Add("Trailer", name)
	}
	if f.Cut == CutShort {
		h.Set("Content-Length", strconv.FormatInt(f.CutAfter+1024, 10))
	}
	s.ResponseWriter.WriteHeader(status)
	if f.Cut == CutHeader {
		s.abortAfterFlush()
	}
}

// wait waits for d and reports whether the client is still there.
func (s *faultWriter) wait(d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.request.Context().Done():
		return false
	}
}

func (s *faultWriter) waitUntil(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	case <-s.request.Context().Done():
		return false
	}
}

func (s *faultWriter) abortAfterFlush() {
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	abort(s.request)
}

func (s *faultWriter) Write(p []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	total := len(p)
	for len(p) > 0 {
		piece := p
		if s.fault.Pace > 0 {
			piece = p[:min(len(p), 1<<10)]
		}
		if err := s.writeChunk(piece); err != nil {
			return total - len(p), err
		}
		p = p[len(piece):]
	}
	return total, nil
}

// errCut ends a response at the cut, because its body may be endless.
var errCut = errors.New("the response is cut short")

// writeChunk writes as much of p as the fault allows.
func (s *faultWriter) writeChunk(p []byte) error {
	if s.fault.Cut == CutBody || s.fault.Cut == CutShort {
		p = p[:min(int64(len(p)), s.fault.CutAfter-s.sent)]
	}
	if s.fault.Pace > 0 && !s.wait(s.fault.Pace) {
		return s.request.Context().Err()
	}
	n, err := s.ResponseWriter.Write(p)
	s.sent += int64(n)
	if s.fault.Cut == CutBody && s.sent >= s.fault.CutAfter {
		s.abortAfterFlush()
	}
	if s.fault.Cut == CutShort && s.sent >= s.fault.CutAfter {
		return errCut
	}
	if s.fault.Pace > 0 && err == nil {
		err = http.NewResponseController(s.ResponseWriter).Flush()
	}
	return err
}

// FlushError implements the flush that [http.ResponseController] calls.
func (s *faultWriter) FlushError() error {
	s.WriteHeader(http.StatusOK)
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// finish applies what remains of the fault at the end of the response.
func (s *faultWriter) finish() {
	s.WriteHeader(http.StatusOK)
	if s.fault.Cut == CutBody {
		s.abortAfterFlush() // the body is shorter than CutAfter
	}
	for name, v := range s.fault.Trailer {
		s.Header().Set(name, v)
	}
}
