package batch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

const (
	// maxList bounds a list, in bytes. One of 100 files has some 200 KB.
	maxList = 8 << 20
	// maxListWait is how long a list that Mimecast sends may wait for others to be read. It
	// has used up a call of the account's quota.
	maxListWait = 5 * time.Second
	// busyRetryAfter is the Retry-After for what is beyond MaxLists or MaxConnections.
	busyRetryAfter = time.Second
)

// serveList serves a list of files, with URLs of the proxy in the place of the original ones.
func (l *layer) serveList(w http.ResponseWriter, r *http.Request, key secret.Text) {
	a := account.Of(r.Context())
	list := &listWriter{ResponseWriter: w, enter: func() error {
		ctx, cancel := context.WithTimeout(r.Context(), maxListWait)
		defer cancel()
		return l.lists.Take(ctx, a)
	}}
	defer func() {
		if list.entered {
			l.lists.Release(a)
		}
	}()
	list.serve(l.next, wholeAndPlain(r))
	if list.passedOn {
		return
	}
	if err := l.sendList(list, r, key); err != nil {
		clear(w.Header())
		maps.Copy(w.Header(), list.before)
		l.fail(w, r, l.listProblem(r, err))
	}
}

// listProblem is the error response for a list that was not sent.
func (l *layer) listProblem(r *http.Request, err error) *problem.Problem {
	switch {
	case r.Context().Err() != nil:
		return explainTo(r, err)
	case errors.Is(err, errTooMany):
		p := problem.New(event.TooBusy, "The proxy is rewriting %d lists of batch files and accepts no more. Retry later.", l.MaxLists)
		p.RetryAfter = busyRetryAfter
		return p
	}
	return problem.New(event.UpstreamReset, "Mimecast's list of batch files cannot be relayed: %v.", err).Because(err)
}

// wholeAndPlain returns a request whose response is neither compressed nor a part: those
// could not be rewritten.
func wholeAndPlain(r *http.Request) *http.Request {
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Del("Range")
	r.Header.Del("If-Range")
	return r
}

// sendList sends the list that was kept. The errors are of the list, and leave the response
// unbegun.
func (l *layer) sendList(list *listWriter, r *http.Request, key secret.Text) error {
	text, err := list.content()
	if err != nil {
		return err
	}
	links := findLinks(text)
	if len(links) == 0 { // a failure with status 200, for example
		list.send([][]byte{list.body.Bytes()})
		return nil
	}
	aead, err := newAEAD(key)
	if err != nil {
		return errors.New("no key can be derived from the client secret")
	}
	name, now := strings.TrimPrefix(r.URL.Path, listPath), l.Now()
	base := l.BaseURL(r) + Path + name + "/"
	pieces, done := make([][]byte, 0, 2*len(links)+1), 0
	for _, link := range links {
		address, err := json.Marshal(base + seal(aead, name, link.url, link.expiry, now))
		if err != nil { // a string always marshals
			return err
		}
		pieces = append(pieces, text[done:link.from], address)
		done = link.to
	}
	pieces = append(pieces, text[done:])
	list.rewriteHeader(pieces)
	list.send(pieces)
	return nil
}

// listWriter is a ResponseWriter that keeps a successful response, and forwards any other
// to the client.
type listWriter struct {
	http.ResponseWriter
	// enter waits until a list may be kept. entered: it may be.
	enter   func() error
	entered bool
	// before has the headers that were there before the response's.
	before   http.Header
	header   http.Header // of the response that is kept
	status   int         // of that response; 0: it has not begun
	body     bytes.Buffer
	passedOn bool
	err      error // why the response is not kept
}

// serve lets a handler respond. One that is cut because its response is not kept has sent
// nothing yet.
func (w *listWriter) serve(next http.Handler, r *http.Request) {
	defer func() {
		why := recover()
		err, _ := why.(error)
		if wasCut := w.err != nil && errors.Is(err, http.ErrAbortHandler); why != nil && !wasCut {
			panic(why)
		}
		w.WriteHeader(http.StatusOK) // if it did not say so
	}()
	w.before = w.Header().Clone()
	next.ServeHTTP(w, r)
}

// WriteHeader implements http.ResponseWriter.
func (w *listWriter) WriteHeader(status int) {
	switch {
	case w.status != 0 || w.passedOn:
	case status < http.StatusOK:
		w.ResponseWriter.WriteHeader(status)
	case status >= http.StatusMultipleChoices:
		w.passedOn = true
		w.ResponseWriter.WriteHeader(status)
	default:
		w.status, w.header = status, w.Header().Clone()
		if w.entered = w.enter() == nil; !w.entered {
			w.err = errTooMany
		}
	}
}

var (
	errTooMany  = errors.New("too many lists are in memory")
	errTooLarge = fmt.Errorf("it has more than %d bytes", maxList)
)

// Write implements http.ResponseWriter.
func (w *listWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.passedOn:
		return w.ResponseWriter.Write(b)
	case w.err == nil && w.body.Len()+len(b) > maxList:
		w.err = errTooLarge
	}
	if w.err != nil {
		return 0, w.err
	}
	return w.body.Write(b)
}

// FlushError is for http.ResponseController. What is kept is not sent by it.
func (w *listWriter) FlushError() error {
	if w.passedOn {
		return http.NewResponseController(w.ResponseWriter).Flush()
	}
	return nil
}

// Unwrap is for http.ResponseController.
func (w *listWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// content returns the body that was kept. A gateway may compress it unasked.
func (w *listWriter) content() ([]byte, error) {
	coding := strings.ToLower(w.header.Get("Content-Encoding"))
	switch {
	case w.err != nil:
		return nil, w.err
	case coding == "" || coding == "identity":
		return w.body.Bytes(), nil
	case coding != "gzip":
		return nil, errors.New("its content coding is unknown")
	}
	z, err := gzip.NewReader(bytes.NewReader(w.body.Bytes()))
	if err != nil {
		return nil, errors.New("it cannot be unpacked")
	}
	text, err := io.ReadAll(io.LimitReader(z, maxList+1))
	switch {
	case err != nil:
		return nil, errors.New("it cannot be unpacked")
	case len(text) > maxList:
		return nil, errTooLarge
	}
	return text, nil
}

// rewriteHeader leaves out what no longer holds of a rewritten list.
func (w *listWriter) rewriteHeader(pieces [][]byte) {
	for _, name := range []string{"Accept-Ranges", "Content-Digest", "Content-Encoding", "Content-Md5", "Digest", "Etag", "Repr-Digest", "Trailer"} {
		w.header.Del(name)
	}
	size := 0
	for _, piece := range pieces {
		size += len(piece)
	}
	w.header.Set("Content-Length", strconv.Itoa(size))
	clear(w.Header()) // of trailers too, which came behind the body
	maps.Copy(w.Header(), w.header)
}

// send sends the pieces of a body.
func (w *listWriter) send(pieces [][]byte) {
	w.ResponseWriter.WriteHeader(w.status)
	out := bufio.NewWriterSize(w.ResponseWriter, bufferSize)
	for _, piece := range pieces {
		_, _ = out.Write(piece) // the client may be gone
	}
	_ = out.Flush()
}
