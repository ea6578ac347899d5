package upstream_test

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/upstream"
)

func TestMain(m *testing.M) {
	suite.Parallel(8) // most of them wait
	os.Exit(m.Run())
}

// burst sends n requests at once and returns how many failed. It logs the first error.
func burst(t *testing.T, c *upstream.Connections, address string, n int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var failed atomic.Int64
	var asking sync.WaitGroup
	for range n {
		asking.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
			if err != nil {
				t.Error(err)
				return
			}
			res, err := c.RoundTrip(req)
			if err != nil {
				if failed.Add(1) == 1 {
					t.Log(err)
				}
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		})
	}
	asking.Wait()
	return int(failed.Load())
}

// streams is the number of concurrent requests per connection, as on Google's front end,
// which serves Mimecast's gateway.
const streams = 100

// upstreamOf starts a server and counts its connections.
func upstreamOf(t *testing.T, http2 bool, u upstream.Options, h http.HandlerFunc) (address string, c *upstream.Connections, connections *atomic.Int64) {
	t.Helper()
	connections = &atomic.Int64{}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	u.Roots = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c = upstream.New(u)
	t.Cleanup(c.CloseIdleConnections)
	return s.URL, c, connections
}

// Without the bound, nearly every request of a burst would open a connection, however fast
// the responses are.
func TestABurstOpensABoundedNumberOfConnections(t *testing.T) {
	suite.Slow(t)
	const n, most = 1000, 150
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for _, http2 := range []bool{true, false} {
		for name, wait := range map[string]time.Duration{"at once": 0, "slowly": 50 * time.Millisecond} {
			address, c, connections := upstreamOf(t, http2, upstream.Options{MaxConnections: 128}, func(http.ResponseWriter, *http.Request) { time.Sleep(wait) })
			for range rounds {
				if failed := burst(t, c, address, n); failed > 0 {
					t.Errorf("HTTP/2 %v, %s: %d requests failed", http2, name, failed)
				}
				got := connections.Swap(0)
				t.Logf("HTTP/2 %v, %s: %d connections", http2, name, got)
				if got > most {
					t.Errorf("HTTP/2 %v, %s: %d connections for %d requests", http2, name, got, n)
				}
				c.CloseIdleConnections()
			}
		}
	}
}

func TestABurstIsNotHeldUp(t *testing.T) {
	for http2, n := range map[bool]int{false: 100, true: 1000} {
		var arrived atomic.Int64
		together := make(chan struct{})
		address, c, _ := upstreamOf(t, http2, upstream.Options{MaxConnections: 128}, func(_ http.ResponseWriter, r *http.Request) {
			if arrived.Add(1) == int64(n) {
				close(together)
			}
			select { // respond only once all requests have arrived
			case <-together:
			case <-r.Context().Done():
			}
		})
		if failed := burst(t, c, address, n); failed > 0 {
			t.Errorf("HTTP/2 %v: %d requests failed", http2, failed)
		}
	}
}

func TestABurstThatFindsNobodyFailsTogether(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	bounds := []int{0, 5, 128} // see golang/go#34941
	if testing.Short() {
		bounds = bounds[2:]
	}
	for _, bound := range bounds {
		c := upstream.New(upstream.Options{DialTimeout: 500 * time.Millisecond, MaxConnections: bound})
		began := time.Now()
		if failed := burst(t, c, "https://"+silent.Addr().String(), 1000); failed != 1000 {
			t.Errorf("%d requests failed", failed)
		}
		if took := time.Since(began); took > 20*time.Second { // five at a time would take 100 s
			t.Errorf("bound of %d: that took %v", bound, took)
		}
	}
}

// The upstream responds to each pair of requests together. If one waited for the other,
// neither would ever get a response.
func TestNoRequestWaitsForAnotherBehindAForwardProxyWithTLS(t *testing.T) {
	const pairs = 30
	met := make(chan struct{})
	corporate := peer.ConnectProxy(t, func(address string) (net.Conn, error) { return net.Dial("tcp", address) })
	corporate.StartTLS() // with the upstream's certificate
	defer corporate.Close()
	via, err := url.Parse(corporate.URL)
	if err != nil {
		t.Fatal(err)
	}
	address, c, _ := upstreamOf(t, true, upstream.Options{Proxy: http.ProxyURL(via), MaxConnections: 128}, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case met <- struct{}{}:
		case <-met:
		case <-r.Context().Done():
		}
	})
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

// Clients that request large responses and read nothing take every place. Clients that read
// must still be served.
func TestClientsThatReadNothingDoNotHoldUpOthers(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const idle, honest = 200, 20
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			chunk := make([]byte, 64<<10)
			for range 1024 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
			return
		}
		io.WriteString(w, "short")
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := upstream.New(upstream.Options{
		Roots: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, MaxConnections: 128, MemoryLimit: 64 << 20,
	})
	t.Cleanup(c.CloseIdleConnections)
	held := make(chan *http.Response, idle)
	for range idle {
		go func() {
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/large", nil)
			if err != nil {
				t.Error(err)
			}
			res, err := c.RoundTrip(req)
			if err != nil {
				t.Error(err)
			}
			held <- res
		}()
	}
	for range 128 {
		defer func(res *http.Response) { res.Body.Close() }(<-held)
	}
	began := time.Now()
	if failed := burst(t, c, s.URL+"/short", honest); failed > 0 {
		t.Errorf("%d requests failed", failed)
	}
	t.Logf("%d requests took %v", honest, time.Since(began))
	for range idle - 128 {
		(<-held).Body.Close()
	}
}
