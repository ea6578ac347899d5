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

// maxEchoedBody bounds how much of a request's body a fault can echo.
const maxEchoedBody = 64 << 10

// injectFault applies f to a request.
func (s *Simulator) injectFault(f Fault, w http.ResponseWriter, r *http.Request) {
	if f.Cut == CutRequest {
		abort(r)
	}
	var body bytes.Buffer
	if f.Status != 0 && !f.Early {
		_, _ = io.CopyN(&body, r.Body, maxEchoedBody)
		_, _ = io.Copy(io.Discard, r.Body) // without a body there is no response either
	}
	f = f.expand(r.Host, body.String())
	f.hint(w)
	if f.Early {
		// Over HTTP/1.1 the server would otherwise read the body before it responds.
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

// hint sends a 103, whose header is no part of the response's.
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

// writeResponse takes the place of the function.
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
			return // the client has had enough
		}
	}
	_ = http.NewResponseController(w).Flush()
}

var padding = regexp.MustCompile(`\{pad:(\d{1,8})\}`)

// expand puts the request's own into a fault's texts.
func (f Fault) expand(host, body string) Fault {
	expand := func(text string) string {
		if !strings.Contains(text, "{") {
			return text
		}
		text = padding.ReplaceAllStringFunc(text, func(m string) string {
			n, _ := strconv.Atoi(padding.FindStringSubmatch(m)[1]) // has digits alone
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

// contextWithConn lets abort reach the connection; it is an http.Server's ConnContext.
func contextWithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// abort ends a request by force. Over HTTP/1.1 the peer sees a reset rather
// than an end, if the connection is known.
func abort(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.ProtoMajor == 1 {
		reset(c)
	}
	panic(http.ErrAbortHandler)
}

func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // past TLS, which would send close_notify first
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // if not, the connection ends in another way
	}
	_ = c.Close() // closed twice is closed
}

// faultWriter spoils a response on its way out.
type faultWriter struct {
	http.ResponseWriter
	request    *http.Request
	fault      Fault
	headerSent bool
	sent       int64 // of the body
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

// wait reports whether the client waited as long.
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

// errCut ends a response that is cut short, which may be endless.
var errCut = errors.New("the response is cut short")

// writeChunk writes as much of the piece as the fault lets through.
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

// FlushError is what http.ResponseController looks for.
func (s *faultWriter) FlushError() error {
	s.WriteHeader(http.StatusOK)
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// finish does what is left at the end of the response.
func (s *faultWriter) finish() {
	s.WriteHeader(http.StatusOK)
	if s.fault.Cut == CutBody {
		s.abortAfterFlush() // the body was shorter than the cut
	}
	for name, v := range s.fault.Trailer {
		s.Header().Set(name, v)
	}
}
