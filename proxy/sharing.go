package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// sharing lets requests to one host go over the same connections of HTTP/2, and
// wait for the one that is being made. http.Transport would dial for every request
// that finds none with room on it, though one could serve many: a burst would cost
// Mimecast, and the proxy's CPU, a handshake for each request. What that costs is
// that the connections for a burst which needs several are made one by one.
type sharing struct {
	shared http.RoundTripper // over the connections of HTTP/2 that are there
	base   http.RoundTripper // over any, and over new ones
	asking atomic.Int64      // requests that wait for an answer
	alone  atomic.Bool       // there is nothing to share: the last handshake led to no such connection

	mu     sync.Mutex // guards making
	making *making    // nil where no connection is being made
}

// making is a connection that a request is having made.
type making struct {
	over   chan struct{} // closed once it is there, or will not be
	failed bool          // it could not be made; set before that
}

const (
	// crowd is how many requests that wait for an answer make it worth while to
	// write several at once. With fewer Mimecast has nothing to do meanwhile.
	crowd = 20
	// dialPatience is how long a request waits for a connection that another one
	// is having made, each time, before it has its own made.
	dialPatience = 3 * time.Second
)

func (s *sharing) crowded() bool { return s.asking.Load() >= crowd }

// RoundTrip implements http.RoundTripper.
func (s *sharing) RoundTrip(req *http.Request) (*http.Response, error) {
	s.asking.Add(1)
	defer s.asking.Add(-1)
	if req.URL.Scheme != "https" {
		return s.base.RoundTrip(req)
	}
	for !s.alone.Load() {
		res, err := s.shared.RoundTrip(req)
		if !errors.Is(err, http2.ErrNoCachedConn) {
			return res, err
		}
		if req, err = rewound(req); err != nil { // it may have been begun, on a connection that Mimecast was closing
			return nil, err
		}
		making, leads := s.lead()
		if leads {
			return s.make(making, req)
		}
		if !making.await(req.Context()) {
			break
		}
	}
	return s.base.RoundTrip(req)
}

// rewound returns req with its body from the first byte on. It relies on GetBody,
// which all that have a body have here, and which ends what was open before.
func rewound(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := *req
	again.Body = body
	return &again, nil
}

// lead returns the connection that is being made, and whether it is the caller who
// is to make it.
func (s *sharing) lead() (_ *making, leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making != nil {
		return s.making, false
	}
	s.making = &making{over: make(chan struct{})}
	return s.making, true
}

// make sends req over a connection that is made for it, or over one that has found
// room meanwhile.
func (s *sharing) make(m *making, req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	defer func() { s.end(m, ctx.Err() == nil) }() // where it has been called off, another takes over
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { s.end(m, false) }}
	return s.base.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
}

// end lets those go who wait, unless they have gone already.
func (s *sharing) end(m *making, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making == m {
		s.making = nil
		m.failed = failed
		close(m.over)
	}
}

// await reports whether there is something to be hoped for of looking again. If
// the connection could not be made, those who wait had better find out for
// themselves, and not one after another.
func (m *making) await(ctx context.Context) bool {
	patience := time.NewTimer(dialPatience)
	defer patience.Stop()
	select {
	case <-m.over:
		return !m.failed
	case <-patience.C:
	case <-ctx.Done():
	}
	return false
}

// watch has t tell of its connections. Those of HTTP/2 are batched.
func (s *sharing) watch(t *http.Transport) {
	dial, share := t.DialContext, t.TLSNextProto["h2"]
	if share == nil { // Go 1.27's own HTTP/2 keeps its connections to itself
		s.alone.Store(true)
		return
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newBatched(c), nil
	}
	t.TLSClientConfig.VerifyConnection = func(c tls.ConnectionState) error {
		if c.NegotiatedProtocol != "h2" {
			s.alone.Store(true)
		}
		return nil
	}
	t.TLSNextProto["h2"] = func(authority string, c *tls.Conn) http.RoundTripper {
		b, ok := c.NetConn().(*batched) // else it goes through a forward proxy's TLS
		if ok {
			b.share(s.crowded)
		}
		s.alone.Store(!ok)
		return share(authority, c)
	}
}
