package upstream_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/upstream"
)

// rejector returns an upstream that calls reject for each connection.
func rejector(t *testing.T, protocol string, reject func(net.Conn)) (u upstream.Options, address string, accepted *atomic.Int64) {
	t.Helper()
	s := peer.ServeTLS(t, []string{protocol}, func(c *tls.Conn) {
		if c.HandshakeContext(t.Context()) == nil {
			reject(c)
		}
	})
	return upstream.Options{Roots: s.Roots, MaxConnections: 128, DialTimeout: 10 * time.Second}, s.URL.String(), &s.Accepted
}

// goAway sends GOAWAY and waits until the peer closes the connection.
func goAway(last uint32) func(net.Conn) {
	return func(c net.Conn) {
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		_ = f.WriteGoAway(last, http2.ErrCodeNo, nil)
		_, _ = io.Copy(io.Discard, c)
	}
}

func TestAnUpstreamThatRejectsEachConnectionIsDialedTenTimesASecond(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const callers = 20
	lasting := 2 * time.Second
	if testing.Short() {
		lasting /= 2
	}
	for name, c := range map[string]struct {
		protocol string
		reject   func(net.Conn)
	}{
		"GOAWAY at once":       {"h2", goAway(0)},
		"closed, HTTP/2":       {"h2", func(net.Conn) {}},
		"closed, HTTP/1.1":     {"http/1.1", func(net.Conn) {}},
		"reset, HTTP/1.1":      {"http/1.1", func(c net.Conn) { _ = c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0) }},
		"closed after a while": {"http/1.1", func(net.Conn) { time.Sleep(20 * time.Millisecond) }},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "GOAWAY at once" && name != "closed, HTTP/1.1" {
				t.Skip("one case of each protocol is enough for -short")
			}
			t.Parallel()
			u, address, accepted := rejector(t, c.protocol, c.reject)
			connections := upstream.New(u)
			defer connections.CloseIdleConnections()
			ctx, stop := context.WithTimeout(t.Context(), lasting)
			defer stop()
			var calling sync.WaitGroup
			var answered, failed atomic.Int64
			for i := range callers {
				method := []string{"GET", "POST"}[i%2]
				calling.Go(func() {
					for ctx.Err() == nil {
						req, err := http.NewRequestWithContext(ctx, method, address, nil)
						if err != nil {
							t.Error(err)
							return
						}
						if res, err := connections.RoundTrip(req); err == nil {
							res.Body.Close()
							answered.Add(1)
						}
						failed.Add(1)
					}
				})
			}
			calling.Wait()
			t.Logf("%d dials for %d requests", accepted.Load(), failed.Load())
			// Dials in flight at the first failure are extra.
			if most := 30 + int64(10*lasting.Seconds()); accepted.Load() > most || answered.Load() > 0 {
				t.Errorf("%d dials in %v, want at most %d", accepted.Load(), lasting, most)
			}
			if failed.Load() < callers {
				t.Errorf("only %d requests got an answer", failed.Load())
			}
		})
	}
}

func TestARequestThatIsTurnedAwayAgainAndAgainMayBeSentAgain(t *testing.T) {
	u, address, accepted := rejector(t, "h2", goAway(0))
	p := explain(t, u, address)
	if p.Code != event.UpstreamUnreachable || accepted.Load() > 10 {
		t.Errorf("%v after %d dials", p, accepted.Load())
	}
}

// Once Mimecast accepts connections again, the next request succeeds at once.
func TestARejectingUpstreamThatRecoversIsUsedAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	t.Parallel()
	var rejects atomic.Bool
	rejects.Store(true)
	f := peer.ServeFrames(t, func(f *peer.Frames, c *peer.FrameConn, stream uint32) {
		if rejects.Load() {
			_ = c.Framer.WriteGoAway(0, http2.ErrCodeNo, nil)
			return
		}
		c.Respond(f, stream)
	})
	c := upstream.New(upstream.Options{Roots: f.Roots, ResponseTimeout: time.Minute})
	defer c.CloseIdleConnections()
	ask := func() error {
		req, err := http.NewRequestWithContext(t.Context(), "GET", f.URL.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.RoundTrip(req)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for range 5 {
		if p, ok := errors.AsType[*problem.Problem](ask()); !ok || p.Code != event.UpstreamUnreachable {
			t.Errorf("%v", p)
		}
	}
	rejects.Store(false)
	if err := ask(); err != nil {
		t.Error(err)
	}
}

// If nothing of a POST was written, its error says that it can be resent.
func TestAConnectionThatDiedBeforeItsFirstUseCostsNoDoubt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	t.Parallel()
	for _, protocol := range []string{"h2", "http/1.1"} {
		u, address, _ := rejector(t, protocol, func(net.Conn) {})
		connections := upstream.New(u)
		for range 20 {
			req, err := http.NewRequestWithContext(t.Context(), "POST", address, strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = connections.RoundTrip(req)
			p := upstream.Explain(err)
			if upstream.Written(err) != (p.Code == event.UpstreamReset) {
				t.Errorf("%s: written is %v, but %v", protocol, upstream.Written(err), p)
			}
		}
		connections.CloseIdleConnections()
	}
}
