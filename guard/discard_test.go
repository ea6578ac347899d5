package guard_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
)

// TestRejectedUploadGetsItsResponse checks that no connection reset overtakes the response
// to a rejected upload, and that the upload holds no slot meanwhile.
func TestRejectedUploadGetsItsResponse(t *testing.T) {
	t.Parallel()
	g, err := newGuard(guard.Policy{MaxRequests: 4, TokenStub: true, Clients: keyed("key-of-the-proxy"), Routes: []string{"POST /api/"}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let through") })))
	defer srv.Close()
	const key, closes = "X-Proxy-Key: key-of-the-proxy\r\n", "Connection: close\r\n"
	for name, c := range map[string]struct {
		head    string
		chunked bool
		size    int
		times   int
		code    event.Code
	}{
		"route":             {"POST /other HTTP/1.1\r\nHost: localhost\r\n" + key + closes, false, 8 << 20, 12, event.RouteNotAllowed},
		"route, HTTP/1.0":   {"POST /other HTTP/1.0\r\nHost: localhost\r\n" + key, false, 8 << 20, 12, event.RouteNotAllowed},
		"route, keep-alive": {"POST /other HTTP/1.1\r\nHost: localhost\r\n" + key, false, 8 << 20, 12, event.RouteNotAllowed},
		"host":              {"POST /api/ HTTP/1.1\r\nHost: elsewhere\r\n" + closes, false, 8 << 20, 12, event.HostNotAllowed},
		"key":               {"POST /api/ HTTP/1.1\r\nHost: localhost\r\n" + closes, false, 8 << 20, 12, event.APIKeyRequired},
		"key, chunked":      {"POST /api/ HTTP/1.1\r\nHost: localhost\r\n" + closes, true, 8 << 20, 12, event.APIKeyRequired},
		"target":            {"POST /a/../b HTTP/1.1\r\nHost: localhost\r\n" + closes, false, 8 << 20, 12, event.BadRequestTarget},
		"token request":     {"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\n" + closes, false, 8 << 20, 12, event.BadRequestBody},
		"short":             {"POST /api/ HTTP/1.1\r\nHost: localhost\r\n" + closes, false, 60 << 10, 12, event.APIKeyRequired},
		"at the limit":      {"POST /api/ HTTP/1.1\r\nHost: localhost\r\n" + closes, false, 64 << 20, 3, event.APIKeyRequired},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				c.times = min(c.times, 3)
			}
			for i := range c.times {
				res, err := peer.Upload(srv.Listener.Addr().String(), c.head, c.chunked, c.size)
				if err != nil {
					t.Fatalf("%d: %v", i, err)
				}
				if got := res.Header.Get(problem.Header); got != string(c.code) || res.StatusCode != c.code.Status() {
					t.Fatalf("%d: %d %s, want %s", i, res.StatusCode, got, c.code)
				}
			}
		})
	}
}

// A rejected client that stops sending holds no slot, and the server closes its connection.
func TestRejectedUploadHoldsNoSlot(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	g, err := newGuard(guard.Policy{MaxRequests: 1})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer srv.Close()
	for range 2 {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 1000000\r\n\r\nbegun"); err != nil {
			t.Fatal(err)
		}
		from := bufio.NewReader(conn)
		res, err := http.ReadResponse(from, nil)
		if err != nil || res.StatusCode != http.StatusForbidden {
			t.Fatalf("%v %v", res, err)
		}
		res, err = http.Get(srv.URL) // while the server waits for the body
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("another client got %d", res.StatusCode)
		}
		if _, err := io.Copy(io.Discard, from); err != nil { // ends when the server closes the connection
			t.Error(err)
		}
	}
}

func TestShortRejectedBodyKeepsTheConnection(t *testing.T) {
	g, err := newGuard(guard.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(g.Wrap(http.NotFoundHandler()))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	from := bufio.NewReader(conn)
	for range 3 {
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: elsewhere\r\nContent-Length: 5\r\n\r\nwhole"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(from, nil)
		if err != nil || res.StatusCode != http.StatusForbidden || res.Close {
			t.Fatalf("%v %v", res, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
	}
}
