package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/problem"
	"mimecast-proxy/proxy"
	"mimecast-proxy/upstream"
)

// proxied returns a proxy in front of f, and a func that closes it.
func proxied(f *peer.Frames) (*httptest.Server, func()) {
	up := upstream.New(upstream.Options{Roots: f.Roots, ResponseTimeout: time.Minute})
	front := httptest.NewServer(handler(&account.Account{BaseURL: f.URL, Tokens: &tokens{}, Transport: up}, 1<<20, proxy.NewBudget(1<<20, nil), proxy.Trace{}))
	return front, func() { front.Close(); up.CloseIdleConnections() }
}

func TestWriteIsResentOnlyWhereMimecastSaysItWasNotCarriedOut(t *testing.T) {
	for name, end := range peer.Endings {
		for method, body := range map[string]string{"POST": "x", "DELETE": "", "PATCH": "{}"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				want := http.StatusOK
				if end.CarriedOut {
					want = http.StatusBadGateway
				}
				var struck atomic.Bool
				var warm atomic.Bool
				f := peer.ServeFrames(t, func(f *peer.Frames, conn *peer.FrameConn, stream uint32) {
					if warm.Load() && struck.CompareAndSwap(false, true) {
						end.Write(f, conn, stream)
						return
					}
					conn.Respond(f, stream)
				})
				front, done := proxied(f)
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
				ask("GET", "") // opens the connection
				warm.Store(true)
				f.Requests.Store(0)
				res := ask(method, body)
				if res.StatusCode != want || f.Requests.Load() != 1 {
					t.Errorf("status %d, carried out %d times; want %d, once", res.StatusCode, f.Requests.Load(), want)
				}
				if end.CarriedOut && res.Header.Get(problem.Header) != "upstream_reset" {
					t.Errorf("%v", res.Header)
				}
			})
		}
	}
}

func TestReadWhoseConnectionIsLostIsSentOnceMore(t *testing.T) {
	for name, times := range map[string]int64{"lost once": 1, "lost each time": 100} {
		var struck atomic.Int64
		f := peer.ServeFrames(t, func(f *peer.Frames, c *peer.FrameConn, stream uint32) {
			if struck.Add(1) <= times {
				c.Close()
				return
			}
			c.Respond(f, stream)
		})
		front, done := proxied(f)
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
	f := peer.ServeFrames(t, func(*peer.Frames, *peer.FrameConn, uint32) { close(arrived) })
	front, done := proxied(f)
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
