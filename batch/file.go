package batch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

// userAgent is all that the host of a file learns of the client.
const userAgent = "mimecast-proxy"

// passedHeaders are the headers of a file's host that a client gets: those that describe
// the content. The host is not the API, so its other headers must not apply to this origin.
var passedHeaders = []string{"Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "Last-Modified", "Etag"}

// serveFile serves a file, or the status with which its host rejects the download.
func (l *layer) serveFile(w http.ResponseWriter, r *http.Request, keys []secret.Text) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		l.deny(w, r, problem.New(event.RouteNotAllowed, "A batch file can only be downloaded: send GET or HEAD."))
		return
	}
	list, sealed := splitPath(r.URL.Path)
	address, ok := open(keys, list, sealed, l.Now())
	if !ok {
		l.deny(w, r, problem.New(event.BatchURLInvalid, "The proxy did not make this batch URL for this account, or the client secret has changed since. Request the list of batch files again."))
		return
	}
	res, p := l.download(r, address)
	if p != nil {
		l.fail(w, r, p)
		return
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusBadRequest && res.StatusCode < http.StatusInternalServerError {
		l.report(r, problem.New(event.RequestRefused, "The batch file's host responded with %d: the URL may have expired.", res.StatusCode))
	}
	copyFile(w, r, res)
}

// deny rejects a request before anything is downloaded.
func (l *layer) deny(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	p.ServeHTTP(w, r)
	if l.Trace.Denied != nil {
		l.Trace.Denied(r.Context(), p.Code)
	}
}

// download requests a file. The request has nothing of the client's but its end and a
// range of bytes. It is a GET for HEAD too, since the URL is signed for no other method.
func (l *layer) download(r *http.Request, address string) (*http.Response, *problem.Problem) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
	if err != nil { // without it: it has the URL
		return nil, explain(errURL)
	}
	req.Header.Set("User-Agent", userAgent)
	if ranges, ok := byteRange(r.Header); ok {
		req.Header.Set("Range", ranges)
	}
	began := time.Now()
	res, err := l.Download.RoundTrip(req)
	if err != nil {
		return nil, explainTo(r, err)
	}
	if l.Trace.Answered != nil {
		l.Trace.Answered(r.Context(), res.StatusCode, time.Since(began))
	}
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusMultipleChoices && res.StatusCode < http.StatusBadRequest {
		res.Body.Close()
		return nil, problem.New(event.UpstreamUnreachable, "The batch file's host responded with %d, and the proxy follows no redirect. Request the list of batch files again.", res.StatusCode)
	}
	return res, nil
}

var rangePattern = regexp.MustCompile(`^bytes=([0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})$`)

// byteRange returns the client's range if it is a single one, which has two numbers at
// most. A condition for it is not passed on, so that the whole file has to be sent then
// (RFC 9110, section 13.1.5).
func byteRange(h http.Header) (string, bool) {
	ranges := h["Range"]
	if len(ranges) != 1 || len(h["If-Range"]) > 0 || !rangePattern.MatchString(ranges[0]) {
		return "", false
	}
	return ranges[0], true
}

// explainTo returns why a download did not begin. If the context of the client's request
// ended, that is the reason.
func explainTo(r *http.Request, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](context.Cause(r.Context())); ok {
		return p
	}
	if r.Context().Err() != nil {
		return problem.New(event.ClientGone, "the client went away").Because(err)
	}
	return explain(err)
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// copyFile sends a response of the host on. One that cannot be sent whole is broken off, so
// that the client does not take it for whole.
func copyFile(w http.ResponseWriter, r *http.Request, res *http.Response) {
	h := w.Header()
	h["Content-Type"] = nil // or net/http makes one up
	for _, name := range passedHeaders {
		if values, ok := res.Header[name]; ok {
			h[name] = values
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(res.StatusCode)
	if r.Method == http.MethodHead {
		return
	}
	_ = http.NewResponseController(w).Flush() // the first byte may take as long as the host likes
	buffer := buffers.Get().(*[bufferSize]byte)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{res.Body}, buffer[:]); err != nil {
		// net/http's HTTP/2 may still send the buffer after an error, so it is not used again.
		_ = http.NewResponseController(w).Flush() // the client may be gone
		panic(http.ErrAbortHandler)
	}
	buffers.Put(buffer)
}
