package guard_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
)

func TestTargetsWithMoreThanOneMeaningAreRejected(t *testing.T) {
	g := newGate(t, guard.Policy{})
	for _, target := range []string{
		// another host
		"http://evil.example/", "http://evil.example", "https://localhost/", "HTTPS://localhost/", "ftp://localhost/", "http:///x",
		"http://user@localhost/", "http://user:pass@localhost:8080/", "http://localhost@evil.example/", "http://evil.example@localhost/",
		"http://localhost.evil.example/", "http://evil.example:8080/x",
		"http://localhost:99999/", "http://[::1/", "http://[::1%25lo]/", "http://loc%61lhost/",
		"//evil.example/", "//", "///", "//localhost/", "http://localhost//evil.example/",
		// dot segments, literal or decoded once
		"/..", "/.", "/../", "/a/..", "/a/../b", "/a/./b", "/a/.", "/a/%2e%2e/b", "/a/%2E%2e/b", "/a/.%2e/b", "/a/%2e./b", "/a/%2e/b",
		"http://localhost/a/../b", "http://localhost/%2e%2e", "/a/..?x", "/a/%2e%2e?x",
		"/a/%252e%252e/b", "/a/.%252E/b", "/a/%25252e%25252e/b", "/a/%2525252e/b", "/a/%25%32%65%25%32%65/b",
		"/100%25/%252e%252e/b", // strict and lenient readers differ on a % without a valid escape
		"/a/..%2fb", "/a%2f..%2fb", "/a%2F..", "/a%252f..%252fb", "/..%2f", "/a/..%c0%afb", "/a/%c0%ae%c0%ae/b", "/a/%e0%80%ae/b", "/a%ff",
		// with backslashes and parameters
		`/a/..\b`, `/a\..\b`, `/\..\`, "/a%5c..%5cb", "/a/..%5cb", "/a%255c..%255cb", "/a/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/..%3b/b", "/a/..%253bx/b",
		"/a/..%3f", "/a/..%23x",
		// control characters
		"/a%00b", "/a%0d%0aX:y", "/a%09b", "/a%1fb", "/a%7fb", "/%00", "/a%2500b", "/a%250a",
		// invalid, or not a path
		"/a#b", "/a#b?c", "/#", "http://localhost#x", "/%25252525252525252e",
	} {
		if _, err := url.ParseRequestURI(target); err != nil { // net/http rejects it
			g.never("GET " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			continue
		}
		g.rejects(event.BadRequestTarget, "GET", target)
	}
}

func TestBrokenTargetsGoNowhere(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"*"}})
	for _, line := range []string{
		"CONNECT localhost:443 HTTP/1.1", "CONNECT evil.example:443 HTTP/1.1", "CONNECT / HTTP/1.1", "CONNECT * HTTP/1.1", "CONNECT http://localhost/ HTTP/1.1",
		"OPTIONS * HTTP/1.1", "GET * HTTP/1.1", "GET *", "PRI * HTTP/2.0", "PRI / HTTP/1.1", "GET / HTTP/2.0", "GET / HTTP/3.0", "GET /x HTTP/0.9", "GET /x",
		"GET x HTTP/1.1", `GET \x HTTP/1.1`, `GET \..\x HTTP/1.1`, "GET ../x HTTP/1.1", "GET ?x HTTP/1.1", "GET #x HTTP/1.1", "GET  /x HTTP/1.1", "GET /x y HTTP/1.1",
		"GET http:x HTTP/1.1", "GET http:/x HTTP/1.1", "GET http://user@localhost/ HTTP/1.1", "GET https://localhost/ HTTP/1.1", "GET localhost:8080 HTTP/1.1", "GET data:,x HTTP/1.1",
		"GET /% HTTP/1.1", "GET /%2 HTTP/1.1", "GET /%zz HTTP/1.1", "GET /%u002e%u002e/x HTTP/1.1", "GET /a%%32e HTTP/1.1",
		"GET /a\x00b HTTP/1.1", "GET /a\x01b HTTP/1.1", "GET /a\tb HTTP/1.1", "GET /a\x7fb HTTP/1.1", "GET /a\rb HTTP/1.1", "GET /x?\x00 HTTP/1.1", "GET /\xff HTTP/1.1", "GET /a/\xc0\xae\xc0\xae/b HTTP/1.1",
		"G ET / HTTP/1.1", "GET\x00 / HTTP/1.1", " / HTTP/1.1",
	} {
		g.never(line + "\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	}
}

func TestHTTP2PrefaceIsRejected(t *testing.T) {
	g := newGate(t, guard.Policy{})
	conn, err := net.Dial("tcp", g.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	got, _ := io.ReadAll(conn) // the server may reset a connection with unread data
	if passed := g.through(); passed != nil || !strings.Contains(string(got), "bad_request_target") {
		t.Errorf("%q, and %q got through", got, passed)
	}
}

func TestUnusualButClearTargetsPassByteForByte(t *testing.T) {
	g := newGate(t, guard.Policy{})
	for _, target := range []string{
		"/", "/?", "/a?b", "/a%2Fb", "/a%2fb", "/a%252Fb", "/%2Fa", "/a%5Cb", `/a\b`, "/a%20b+c", "/a;b=1/c;d?e;f=1", "/a%3Bb", "/x?tz=[Asia/Kolkata]&a=1:2", "/[a]", "/a..b/...", "/..a/.b",
		"/.well-known/x", "/a//b", "/a/", "/%E2%82%AC/\xc3\xa9", "/a%25b", "/100%25", "/a:b@c/", "/a%3Fb", "/a%23b", "/a|b{c}^d`e\"f<>", "/a'(b)!$&,=*~_-",
		"/x?a=%2e%2e/../..\\;//", "/x?%00", "/x?%zz", "/x?a#b", "/x?\xff", "/x?http://evil.example/", "/x?" + strings.Repeat("a=1&", 10_000),
		"http://localhost/x", "HTTP://LocalHost:8080/x?y", "http://127.0.0.1", "http://127.0.0.1?x", "http://[::1]:8080/a%2Fb",
	} {
		g.passes("GET", target)
	}
}

func TestTargetIsCheckedAsItCameAndNotAsItWasRepaired(t *testing.T) {
	g, err := newGuard(guard.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	passed := false
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
	for _, target := range []string{"/a/../b", "", "//x", "/a%"} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/clean", nil)
		r.Host, r.RequestURI = "localhost", target
		rec := httptest.NewRecorder()
		if h.ServeHTTP(rec, r); passed || rec.Code != 400 {
			t.Errorf("%q: %d", target, rec.Code)
		}
	}
}

func TestEscapesWithinEscapesTakeNoTimeToReject(t *testing.T) {
	g := newGate(t, guard.Policy{})
	g.rejects(event.BadRequestTarget, "GET", "/%"+strings.Repeat("25", 100_000)+"2e")
}

func TestUpgradesAreRejectedAndOffersOfOneAreNot(t *testing.T) {
	g := newGate(t, guard.Policy{})
	for _, protocol := range []string{"websocket", "WebSocket", "h2c, websocket", "connect-udp", "h2", ""} {
		g.rejects(event.UpgradeNotSupported, "GET", "/", "Connection: Upgrade", "Upgrade: "+protocol, "Sec-WebSocket-Key: x")
	}
	g.rejects(event.UpgradeNotSupported, "GET", "/", "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket")
	// curl --http2, and Apache HttpClient since 5.4
	g.passes("GET", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
	g.passes("GET", "/", "Connection: Upgrade", "Upgrade: TLS/1.2")
	g.passes("GET", "/", "Connection: Upgrade", "Upgrade: TLS/1.3, HTTP/2.0")
}
