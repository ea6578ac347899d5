package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
)

// frames is an HTTP/2 server that does with each whole request what end says,
// which no well-behaved one would. It counts the requests that it carried out.
type frames struct {
	t        *testing.T
	l        net.Listener
	roots    *x509.CertPool
	end      func(f *frames, c *conn, stream uint32)
	requests atomic.Int64
	running  sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

// conn is a connection with how many requests it has had.
type conn struct {
	net.Conn
	framer *http2.Framer
	nth    int
}

func (c *conn) answer(f *frames, stream uint32) {
	f.requests.Add(1)
	var block strings.Builder
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
}

func serveFrames(t *testing.T, end func(*frames, *conn, uint32)) *frames {
	t.Helper()
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	f := &frames{t: t, l: l, roots: x509.NewCertPool(), end: end}
	f.roots.AddCert(certificate.Certificate())
	f.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.open = append(f.open, c)
			f.mu.Unlock()
			f.running.Go(func() { defer c.Close(); f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		for _, c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		f.running.Wait()
	})
	return f
}

func (f *frames) serve(c net.Conn) {
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	peer := &conn{Conn: c, framer: http2.NewFramer(c, c)}
	_ = peer.framer.WriteSettings()
	for {
		frame, err := peer.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = peer.framer.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				peer.nth++
				f.end(f, peer, frame.StreamID)
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				peer.nth++
				f.end(f, peer, frame.StreamID)
			}
		}
	}
}

func (f *frames) proxied() (*httptest.Server, func()) {
	base, err := url.Parse("https://" + f.l.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	up := proxy.Upstream{Roots: f.roots, ResponseTimeout: time.Minute}.Connections()
	front := httptest.NewServer(proxy.New(proxy.Options{Upstream: base, Transport: &proxy.Transport{
		Base: up, Source: &tokens{}, ReplayLimit: 1 << 20, Budget: proxy.NewBudget(1<<20, nil),
	}}))
	return front, func() { front.Close(); up.CloseIdleConnections() }
}

func TestWriteIsResentOnlyWhereMimecastSaysItWasNotCarriedOut(t *testing.T) {
	for name, c := range map[string]struct {
		strike   func(f *frames, c *conn, stream uint32)
		status   int
		requests int64
	}{
		"carried out, then PROTOCOL_ERROR": {func(f *frames, c *conn, stream uint32) {
			f.requests.Add(1)
			_ = c.framer.WriteRSTStream(stream, http2.ErrCodeProtocol)
		}, 502, 1},
		"carried out, then INTERNAL_ERROR": {func(f *frames, c *conn, stream uint32) {
			f.requests.Add(1)
			_ = c.framer.WriteRSTStream(stream, http2.ErrCodeInternal)
		}, 502, 1},
		"carried out, then gone": {func(f *frames, c *conn, _ uint32) {
			f.requests.Add(1)
			c.Close()
		}, 502, 1},
		"carried out, then GOAWAY that counts it, then gone": {func(f *frames, c *conn, stream uint32) {
			f.requests.Add(1)
			_ = c.framer.WriteGoAway(stream, http2.ErrCodeNo, nil)
			c.Close()
		}, 502, 1},
		"GOAWAY that leaves it out": {func(_ *frames, c *conn, stream uint32) {
			_ = c.framer.WriteGoAway(stream-2, http2.ErrCodeNo, nil)
		}, 200, 1},
		"REFUSED_STREAM": {func(_ *frames, c *conn, stream uint32) {
			_ = c.framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}, 200, 1},
	} {
		for method, body := range map[string]string{"POST": "x", "DELETE": "", "PATCH": "{}"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				var struck atomic.Bool
				var warm atomic.Bool
				f := serveFrames(t, func(f *frames, peer *conn, stream uint32) {
					if warm.Load() && struck.CompareAndSwap(false, true) {
						c.strike(f, peer, stream)
						return
					}
					peer.answer(f, stream)
				})
				front, done := f.proxied()
				defer done()
				ask := func(method, body string) *http.Response {
					req, err := http.NewRequestWithContext(t.Context(), method, front.URL+"/api", strings.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					res, err := front.Client().Do(req)
					if err != nil {
						t.Fatal(err)
					}
					res.Body.Close()
					return res
				}
				ask("GET", "") // a connection that is in use already
				warm.Store(true)
				f.requests.Store(0)
				res := ask(method, body)
				if res.StatusCode != c.status || f.requests.Load() != c.requests {
					t.Errorf("status %d, carried out %d times; want %d, %d", res.StatusCode, f.requests.Load(), c.status, c.requests)
				}
				if c.status == 502 && res.Header.Get(problem.Header) != "upstream_reset" {
					t.Errorf("%v", res.Header)
				}
			})
		}
	}
}

func TestReadWhoseConnectionIsLostIsSentOnceMore(t *testing.T) {
	for name, times := range map[string]int64{"lost once": 1, "lost each time": 100} {
		var struck atomic.Int64
		f := serveFrames(t, func(f *frames, c *conn, stream uint32) {
			if struck.Add(1) <= times {
				c.Close()
				return
			}
			c.answer(f, stream)
		})
		front, done := f.proxied()
		res, err := front.Client().Get(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if want := map[int64]int{1: 200, 100: 502}[times]; res.StatusCode != want || struck.Load() != 2 {
			t.Errorf("%s: %d after %d attempts", name, res.StatusCode, struck.Load())
		}
		done()
	}
}

func TestWriteEndsWithItsClient(t *testing.T) {
	arrived := make(chan bool)
	f := serveFrames(t, func(*frames, *conn, uint32) { close(arrived) })
	front, done := f.proxied()
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "POST", front.URL, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := front.Client().Do(req); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
