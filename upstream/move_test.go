package upstream_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/upstream"
)

// TestANameThatMovesIsFollowed checks that requests reach a name's new address without
// loss. The old address still responds and is never idle.
func TestANameThatMovesIsFollowed(t *testing.T) {
	t.Parallel()
	const life = 500 * time.Millisecond
	for _, http2 := range []bool{true, false} {
		serve := func(name string) *httptest.Server {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
			s.EnableHTTP2 = http2
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.StartTLS()
			return s
		}
		before, after := serve("before"), serve("after")
		var address atomic.Pointer[string]
		first, second := before.Listener.Addr().String(), after.Listener.Addr().String()
		address.Store(&first)
		// A corporate proxy resolves the name for each connection.
		corporate := peer.ConnectProxy(t, func(string) (net.Conn, error) { return net.Dial("tcp", *address.Load()) })
		corporate.Start()
		via, err := url.Parse(corporate.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := upstream.New(upstream.Options{Roots: before.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Proxy: http.ProxyURL(via), MaxConnections: 128})
		c.SetLife(life)
		var moved atomic.Bool
		deadline := time.Now().Add(30 * time.Second)
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for n := 0; ; n++ {
					req, err := http.NewRequestWithContext(t.Context(), "POST", "https://example.com/", nil)
					if err != nil {
						t.Error(err)
						return
					}
					res, err := c.RoundTrip(req)
					if err != nil {
						t.Errorf("lost: %v", err)
						return
					}
					got, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil {
						t.Errorf("lost: %v", err)
						return
					}
					if string(got) == "after" {
						moved.Store(true)
						return
					}
					if n == 50 {
						address.Store(&second)
					}
					if time.Now().After(deadline) {
						t.Error("still at the old address")
						return
					}
				}
			})
		}
		asking.Wait()
		if !moved.Load() {
			t.Errorf("HTTP/2 %v: not followed", http2)
		}
		c.CloseIdleConnections()
		corporate.Close() // first, because a connection that is still being opened needs a running server
		before.CloseClientConnections()
		after.CloseClientConnections()
		before.Close()
		after.Close()
	}
}
