package proxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/proxy"
)

// burst sends n requests at once, and returns how many there were that failed.
func burst(t *testing.T, c proxy.Connections, address string, n int) int {
	t.Helper()
	var failed atomic.Int64
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := c.RoundTrip(req)
			if err != nil {
				failed.Add(1)
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		})
	}
	asking.Wait()
	return int(failed.Load())
}

// streams is how many requests a connection of upstreamOf takes at once.
const streams = 100

// upstreamOf starts a server and counts the connections that it gets.
func upstreamOf(t *testing.T, http2 bool, h http.HandlerFunc) (address string, c proxy.Connections, connections *atomic.Int64) {
	t.Helper()
	connections = &atomic.Int64{}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	c = proxy.Upstream{Roots: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}.Transport()
	t.Cleanup(c.CloseIdleConnections)
	return s.URL, c, connections
}

func TestABurstOverHTTP2MakesOneConnection(t *testing.T) {
	address, c, connections := upstreamOf(t, true, func(http.ResponseWriter, *http.Request) {})
	for i := range 3 {
		if failed := burst(t, c, address, 100); failed > 0 {
			t.Errorf("%d requests failed", failed)
		}
		if got := connections.Load(); got != int64(i+1) {
			t.Errorf("after burst %d there have been %d connections", i+1, got)
		}
		c.CloseIdleConnections()
	}
}

// Google's front end, which Mimecast's gateway is behind, takes 100 streams on a
// connection.
func TestABurstThatOneConnectionHasNoRoomForMakesNoMoreThanItNeeds(t *testing.T) {
	const n = 1000
	var together sync.WaitGroup
	together.Add(n)
	address, c, connections := upstreamOf(t, true, func(http.ResponseWriter, *http.Request) {
		together.Done()
		together.Wait() // nobody is answered before all have asked
	})
	if failed := burst(t, c, address, n); failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
	if got := connections.Load(); got < n/streams || got > n/streams+10 {
		t.Errorf("%d connections for %d requests", got, n)
	}
}

func TestABurstOverHTTP1IsNotHeldUp(t *testing.T) {
	const n = 50
	var together sync.WaitGroup
	together.Add(n)
	address, c, _ := upstreamOf(t, false, func(http.ResponseWriter, *http.Request) {
		together.Done()
		together.Wait() // nobody is answered before all have asked
	})
	if failed := burst(t, c, address, n); failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
}

func TestABurstThatFindsNobodyFailsTogether(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c := proxy.Upstream{DialTimeout: 500 * time.Millisecond}.Transport()
	began := time.Now()
	if failed := burst(t, c, "https://"+silent.Addr().String(), 100); failed != 100 {
		t.Errorf("%d requests failed", failed)
	}
	if took := time.Since(began); took > 20*time.Second { // one after another: 50 s
		t.Errorf("that took %v", took)
	}
}

// secureProxy is a forward proxy that is spoken to over TLS.
func secureProxy(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		far, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer far.Close()
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(far, near); far.Close() }()
		io.Copy(near, far)
	}))
	t.Cleanup(s.Close)
	return s
}

// Each pair of requests is answered together. One that waited for the other would
// do so until its patience ends.
func TestNoRequestWaitsForAnotherBehindAForwardProxyWithTLS(t *testing.T) {
	const pairs = 30
	met := make(chan struct{})
	address, c, _ := upstreamOf(t, true, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case met <- struct{}{}:
		case <-met:
		case <-r.Context().Done():
		}
	})
	via, err := url.Parse(secureProxy(t).URL) // whose certificate is the upstream's
	if err != nil {
		t.Fatal(err)
	}
	c.Proxy = http.ProxyURL(via)
	began := time.Now()
	for range pairs {
		if failed := burst(t, c, address, 2); failed > 0 {
			t.Fatalf("%d requests failed", failed)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%d pairs of requests took %v", pairs, took)
	}
}
