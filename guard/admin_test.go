package guard_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
)

// adminOn serves a guarded admin page on a listener. It returns a func that sends a request
// and returns the response's status and code.
func adminOn(t *testing.T, network, address string, denied *[]string) func(method string, headers ...string) (int, string) {
	t.Helper()
	g, err := newGuard(guard.Policy{
		Hosts: []string{"*", "mimecast.internal"}, Origins: []string{"https://tool.example"}, Clients: keyed("k"), Routes: []string{"GET /siem/"},
		Trace: guard.Trace{Denied: func(_ context.Context, reason event.Code, _ bool) { *denied = append(*denied, string(reason)) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(g.WrapAdmin(nowhereHandler{}))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return func(method string, headers ...string) (int, string) {
		t.Helper()
		conn, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s / HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n", method, strings.Join(headers, "\r\n"))
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode, res.Header.Get(problem.Header)
	}
}

func TestAdminPageIsForThisMachinesOwnNamesAndOrigin(t *testing.T) {
	var denied []string
	ask := adminOn(t, "tcp", "127.0.0.1:0", &denied)
	for _, headers := range [][]string{
		{"Host: localhost:9090"}, {"Host: 127.0.0.1:9090"}, {"Host: [::1]:9090"}, {"Host: mimecast.internal:9090"},
		{"Host: localhost:9090", "Origin: http://localhost:9090", "Sec-Fetch-Site: same-origin"}, {"Host: localhost:9090", "Sec-Fetch-Site: none"},
	} {
		if status, code := ask("POST", headers...); status != 200 {
			t.Errorf("%q: %d %s", headers, status, code)
		}
	}
	if denied != nil {
		t.Errorf("reported %v", denied)
	}
	for _, c := range []struct {
		code    string
		headers []string
	}{
		{"host_not_allowed", []string{"Host: evil.example:9090"}}, // even if the data port accepts "*"
		{"host_not_allowed", []string{"Host: evil.example:9090", "Origin: http://evil.example:9090"}},
		{"host_not_allowed", []string{"Host: 0.0.0.0:9090"}},
		{"origin_not_allowed", []string{"Host: localhost:9090", "Origin: https://evil.example"}},
		{"origin_not_allowed", []string{"Host: localhost:9090", "Origin: https://tool.example"}}, // even if it may call the data port
		{"origin_not_allowed", []string{"Host: localhost:9090", "Origin: http://localhost:8080"}},
		{"origin_not_allowed", []string{"Host: localhost:9090", "Origin: null"}},
		{"origin_not_allowed", []string{"Host: localhost:9090", "Sec-Fetch-Site: cross-site"}},
		{"origin_not_allowed", []string{"Host: localhost:9090", "Sec-Fetch-Site: same-site"}},
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			denied = nil
			if status, code := ask(method, c.headers...); status != 403 || code != c.code || !slices.Equal(denied, []string{c.code}) {
				t.Errorf("%s %q: %d %q, reported %v", method, c.headers, status, code, denied)
			}
		}
	}
}

func TestAdminSocketTakesAnyHostAndNoPage(t *testing.T) {
	dir, err := os.MkdirTemp("", "g") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var denied []string
	ask := adminOn(t, "unix", filepath.Join(dir, "s"), &denied)
	for _, host := range []string{"localhost", "any.example", ""} {
		if status, code := ask("GET", "Host: "+host); status != 200 {
			t.Errorf("%q: %d %s", host, status, code)
		}
	}
	if status, code := ask("GET", "Host: any.example", "Origin: http://any.example"); status != 403 || code != "origin_not_allowed" {
		t.Errorf("%d %s", status, code)
	}
}

// A test on loopback has no remote peers, so this test builds its requests.
func TestAdminPageIsForLoopbackPeersAlone(t *testing.T) {
	g, err := newGuard(guard.Policy{Hosts: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	h := g.WrapAdmin(nowhereHandler{})
	for peer, want := range map[string]int{
		"127.0.0.1:1": 200, "[::1]:1": 200, "[::ffff:127.0.0.1]:1": 200,
		"127.0.0.6:1": 403, "127.8.8.8:1": 403, "[::ffff:127.0.0.6]:1": 403, // a relay's own address
		"10.0.0.1:1": 403, "[::ffff:10.0.0.1]:1": 403, "[fe80::1%eth0]:1": 403, "0.0.0.0:1": 403, "192.0.2.1:1": 403, "": 403, "@": 403, "127.0.0.1": 403, "localhost:1": 403, "/run/127.0.0.1:1": 403,
	} {
		for local, open := range map[string]bool{"127.0.0.1:9090": true, "[::1]:9090": true, "127.1.2.3:9090": true, "[::ffff:127.0.0.1]:9090": true, "10.0.0.1:9090": false, "[fe80::1%eth0]:9090": false, "0.0.0.0:9090": false} {
			r := newRequest(t, "GET", "/")
			r.RemoteAddr = peer
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))))
			rec := httptest.NewRecorder()
			if h.ServeHTTP(rec, r); rec.Code != want && open || rec.Code != 403 && !open {
				t.Errorf("%q to %q: %d", peer, local, rec.Code)
			}
		}
	}
}

func TestAdminPageIsNotForARelaysPeers(t *testing.T) {
	var denied []string
	dir, err := os.MkdirTemp("", "g")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for network, address := range map[string]string{"tcp": "0.0.0.0:0", "unix": filepath.Join(dir, "s")} {
		ask := adminOn(t, network, address, &denied)
		for _, mark := range []string{
			"X-Forwarded-For: 127.0.0.1", "x-forwarded-proto: http", "X-Forwarded-Client-Cert: x", "Forwarded: for=127.0.0.1", "Via: 1.1 x", "X-Envoy-Attempt-Count: 1", "X-Real-IP: 127.0.0.1", "X_Forwarded_For: 1", "CF-Connecting-IP: 1", "l5d-client-id: x",
		} {
			denied = nil
			if status, code := ask("GET", "Host: localhost:9090", mark); status != 403 || code != "host_not_allowed" || len(denied) != 1 {
				t.Errorf("%s, %s: %d %s, reported %v", network, mark, status, code, denied)
			}
		}
		for _, harmless := range []string{"X-Request-Id: 1", "Viable: 1", "User-Agent: kubectl", "Traceparent: x"} {
			if status, code := ask("GET", "Host: localhost:9090", harmless); status != 200 {
				t.Errorf("%s, %s: %d %s", network, harmless, status, code)
			}
		}
	}
}

// TestAdminPageIsNotForIstiosInboundRelay connects as the relay does. That is possible only
// on machines where all of 127.0.0.0/8 is local.
func TestAdminPageIsNotForIstiosInboundRelay(t *testing.T) {
	g, err := newGuard(guard.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(g.WrapAdmin(nowhereHandler{}))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	for from, want := range map[string]int{"127.0.0.1": 200, "127.0.0.6": 403} {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		transport := &http.Transport{DialContext: dialer.DialContext}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1:"+port+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "localhost"
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Skip(err)
		}
		res.Body.Close()
		transport.CloseIdleConnections()
		if res.StatusCode != want {
			t.Errorf("from %s: %d, want %d", from, res.StatusCode, want)
		}
	}
}

// TestAdminAdviceNamesNoSettingThatDoesNotHelp sends a request from a page of an allowed
// origin.
func TestAdminAdviceNamesNoSettingThatDoesNotHelp(t *testing.T) {
	g, err := guard.New(guard.Policy{Origins: []string{"https://tool.example"}})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(&net.UnixAddr{Net: "unix"})), "GET", "/", nil)
	r.Header.Set("Origin", "https://tool.example")
	g.WrapAdmin(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "PROXY_ALLOWED_ORIGINS") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
