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

// sharing lets requests go over the same connections of HTTP/2, and wait for the
// one that is being made. http.Transport would dial for every request that finds
// none with room on it, though one could serve many: a burst would cost Mimecast,
// and the proxy's CPU, a handshake for each request.
type sharing struct {
	shared http.RoundTripper // over the connections of HTTP/2 that are there
	base   http.RoundTripper // over any, and over new ones
	asking atomic.Int64      // requests that wait for an answer
	alone  atomic.Bool       // there is nothing to share: the last handshake led to no such connection

	mu     sync.Mutex    // guards making
	making chan struct{} // closed once the connection that is being made is there or lost; nil where none is
}

const (
	// crowd is how many requests that wait for an answer make it worth while to
	// write several at once. With fewer Mimecast has nothing to do meanwhile.
	crowd = 20
	// dialPatience is how long a request waits for a connection that another one
	// is having made, before it has its own made.
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
		over, others := s.lead()
		if over != nil {
			defer over()
			trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { over() }}
			return s.base.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
		}
		if !await(req.Context(), others) {
			break
		}
	}
	return s.base.RoundTrip(req)
}

// rewound returns req with its body from the first byte on.
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

// lead gives leave to make a connection, and is to be told when it is made or
// lost; or it returns what is closed when that is so of another request's.
func (s *sharing) lead() (over func(), others <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.making != nil {
		return nil, s.making
	}
	s.making = make(chan struct{})
	return sync.OnceFunc(s.led), nil
}

func (s *sharing) led() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.making)
	s.making = nil
}

// await reports whether the others' connection is worth waiting for.
func await(ctx context.Context, others <-chan struct{}) bool {
	patience := time.NewTimer(dialPatience)
	defer patience.Stop()
	select {
	case <-others:
		return true
	case <-patience.C:
	case <-ctx.Done():
	}
	return false
}

// watch has t tell of its connections. Those of HTTP/2 are batched.
func (s *sharing) watch(t *http.Transport) {
	dial, share := t.DialContext, t.TLSNextProto["h2"]
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
