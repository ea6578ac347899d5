package api1

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
)

// maxPage bounds a page of the API's, in bytes. One of 100 events has some 200 KB.
const maxPage = 8 << 20

// ask sends a request to API 2.0, for the same account and client. What is not a response
// with 200 goes to the client.
func (t *translation) ask(path string, query url.Values) *capture {
	req := t.r.Clone(t.r.Context())
	req.Method = http.MethodGet
	req.URL = &url.URL{Path: path, RawQuery: query.Encode()}
	req.RequestURI = req.URL.RequestURI()
	req.Body, req.GetBody, req.ContentLength, req.TransferEncoding = http.NoBody, nil, 0, nil
	req.Trailer, req.Form, req.PostForm, req.MultipartForm = nil, nil, nil, nil
	req.Header = http.Header{"Accept": {"application/json"}}
	// The account, for a partner, and the client, for Mimecast's support.
	for _, name := range []string{"X-Mc-Accountcode", "User-Agent"} {
		if v, ok := t.r.Header[name]; ok {
			req.Header[name] = v
		}
	}
	c := &capture{w: t.w, header: http.Header{}, enter: t.enter}
	t.next.ServeHTTP(c, req)
	if !c.began {
		c.WriteHeader(http.StatusOK)
	}
	return c
}

// capture is a ResponseWriter that keeps a response with 200, and forwards any other to
// the client. It has no Unwrap: the rest of the chain must not flush the client's
// response before it is known.
type capture struct {
	w         http.ResponseWriter
	header    http.Header
	body      bytes.Buffer
	began     bool
	forwarded bool
	overflow  bool
	// enter reports whether the response may be kept; busy: it may not.
	enter func() bool
	busy  bool
}

// Header implements http.ResponseWriter.
func (c *capture) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *capture) WriteHeader(status int) {
	if c.began || status < http.StatusOK { // clients of API 1.0 need no interim response
		return
	}
	c.began = true
	if status != http.StatusOK {
		c.forwardHeader(status)
		return
	}
	c.busy = !c.enter()
}

func (c *capture) forwardHeader(status int) {
	c.forwarded = true
	h := c.w.Header()
	maps.Copy(h, c.header)
	h.Set(Header, "translated")
	c.w.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (c *capture) Write(b []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	switch {
	case c.forwarded:
		return c.w.Write(b)
	case c.busy:
	case c.body.Len()+len(b) > maxPage:
		c.overflow = true
	default:
		c.body.Write(b)
	}
	return len(b), nil
}

// Flush implements http.Flusher.
func (c *capture) Flush() {
	if c.forwarded {
		_ = http.NewResponseController(c.w).Flush() // the client may be gone
	}
}

// forward sends the response that was kept.
func (c *capture) forward() {
	c.forwardHeader(http.StatusOK)
	_, _ = c.w.Write(c.body.Bytes()) // the client may be gone
}

var errPageTooLarge = fmt.Errorf("the page has more than %d bytes", maxPage)

// content returns the body that was kept. A gateway may compress it unasked.
func (c *capture) content() ([]byte, error) {
	switch {
	case c.overflow:
		return nil, errPageTooLarge
	case c.header.Get("Content-Encoding") == "":
		return c.body.Bytes(), nil
	case c.header.Get("Content-Encoding") != "gzip":
		return nil, errors.New("the page has an unknown content coding")
	}
	z, err := gzip.NewReader(&c.body)
	if err != nil {
		return nil, fmt.Errorf("unpacking the page: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("unpacking the page: %w", err)
	}
	if len(b) > maxPage {
		return nil, errPageTooLarge
	}
	return b, nil
}
