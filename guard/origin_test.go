package guard_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
)

const (
	tool = "Origin: https://tool.example"
	evil = "Origin: https://evil.example"
)

func TestPagesOfOtherOriginsAreRejectedWhateverTheMethod(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://tool.example"}, TokenStub: true})
	for _, marks := range [][]string{
		{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Sec-Fetch-Site: nonsense"}, {"Sec-Fetch-Site: "}, {"Sec-Fetch-Site: Same-Origin"},
		{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: none, cross-site"},
		{evil}, {"Origin: null"}, {"Origin: "}, {"Origin: *"}, {"Origin: http://localhost"}, {"Origin: http://localhost:1"}, {"Origin: https://localhost:8080"}, {"Origin: localhost:8080"},
		{"Origin: http://127.0.0.1:8080"}, {"Origin: http://tool.example"}, {"Origin: https://tool.example:444"}, {"Origin: https://tool.example.evil.example"}, {"Origin: https://tool.example/"},
		{"Origin: https://tool.example https://evil.example"}, {"Origin: https://evil.example\xff"},
		{tool, evil}, {evil, tool}, {tool, tool}, {evil, "Sec-Fetch-Site: same-origin"}, {evil, "Sec-Fetch-Site: none"}, {"Origin: http://localhost:8080", "Sec-Fetch-Site: cross-site"},
		{evil, "Access-Control-Request-Method: GET"}, {"Origin: null", "Access-Control-Request-Method: GET"},
		{evil, "Connection: Upgrade", "Upgrade: websocket"}, {"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "DELETE"} {
			for _, target := range []string{"/", "/oauth/token"} {
				a := g.rejects(event.OriginNotAllowed, method, target, append(marks, "Content-Length: 0")...)
				for name := range a.header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s %q: %s in the rejection", method, marks, name)
					}
				}
			}
		}
	}
}

func TestAPersonAndTheOwnOriginPass(t *testing.T) {
	g := newGate(t, guard.Policy{})
	g.passes("GET", "/", "Sec-Fetch-Site: none")
	g.passes("GET", "/", "Sec-Fetch-Site: same-origin")
	g.passes("POST", "/", "Origin: http://localhost:8080", "Sec-Fetch-Site: same-origin", "Content-Length: 0")
	g.passes("POST", "/", "Origin: http://localhost:8080", "Content-Length: 0")
	g.passes("GET", "http://127.0.0.1:9/", "Origin: http://127.0.0.1:9")
	if a := g.passes("GET", "/", "Origin: http://localhost:8080"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a page's own origin was granted CORS: %v", a.header)
	}
}

func TestAReboundPageIsNotItsOwnOriginWhereAnyHostIsAccepted(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"*"}})
	g.rejects(event.OriginNotAllowed, "POST", "/", "Host: evil.example:8080", "Origin: http://evil.example:8080", "Content-Length: 0")
	g.passes("POST", "/", "Origin: http://localhost:8080", "Content-Length: 0")
}

func TestReboundPageIsRejectedForItsName(t *testing.T) {
	g := newGate(t, guard.Policy{})
	g.rejects(event.HostNotAllowed, "GET", "/identity/whoami", "Host: evil.example:8080") // a request without any browser header
	g.rejects(event.HostNotAllowed, "POST", "/", "Host: evil.example:8080", "Origin: http://evil.example:8080", "Sec-Fetch-Site: same-origin", "Content-Length: 0")
}

func TestAnAllowedOriginMayCallAndReadTheResponse(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://Tool.example:443", "http://tool.internal:80", "http://tool.internal:3000", "chrome-extension://abc"}})
	g.next = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Vary", "Accept-Encoding") }
	for _, origin := range []string{"https://tool.example", "http://tool.internal", "http://tool.internal:3000", "chrome-extension://abc"} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			a := g.passes(method, "/x", "Origin: "+origin, "Sec-Fetch-Site: cross-site", "Content-Length: 0")
			if a.header.Get("Access-Control-Allow-Origin") != origin || a.header.Get("Access-Control-Expose-Headers") != "*" ||
				strings.Join(a.header["Vary"], ", ") != "Accept-Encoding, Origin" || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %v", method, origin, a.header)
			}
		}
	}
	if a := g.passes("GET", "/x"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no page asked, and was answered: %v", a.header)
	}
}

func TestAnAllowedOriginCanReadWhyItWasRejected(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://tool.example"}, Clients: keyed("k"), Routes: []string{"GET /siem/"}})
	for _, a := range []answer{
		g.rejects(event.APIKeyRequired, "GET", "/siem/", tool),
		g.rejects(event.RouteNotAllowed, "GET", "/x", tool, "X-Proxy-Key: k"),
		g.rejects(event.RouteNotAllowed, "POST", "/oauth/token", tool),
	} {
		if a.header.Get("Access-Control-Allow-Origin") != "https://tool.example" || a.header.Get("Access-Control-Expose-Headers") != "*" {
			t.Errorf("%v", a.header)
		}
	}
}

func TestPreflightOfAnAllowedOriginNeedsNoKey(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://tool.example"}, Clients: keyed("k"), Routes: []string{"GET /siem/"}})
	a := g.ask("OPTIONS", "/x", tool, "Sec-Fetch-Site: cross-site", "Access-Control-Request-Method: PATCH",
		"Access-Control-Request-Headers: authorization,x-mc-arg", "Access-Control-Request-Private-Network: true")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":          "https://tool.example",
		"Access-Control-Allow-Methods":         "PATCH",
		"Access-Control-Allow-Headers":         "authorization,x-mc-arg",
		"Access-Control-Allow-Private-Network": "true",
		"Access-Control-Allow-Credentials":     "",
		"Access-Control-Max-Age":               "600",
		"Vary":                                 "Access-Control-Request-Method, Access-Control-Request-Headers, Origin",
	} {
		if got := strings.Join(a.header[name], ", "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if a.status != 204 || a.body != "" || g.through() != nil || g.reported() != nil {
		t.Errorf("%+v", a)
	}
}

func TestPreflightIsGrantedWhatItAsksForWithinBounds(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://tool.example"}})
	for _, c := range []struct{ method, headers string }{
		{"G\xc3\xa9T", "x\xff"}, {"GET;", "a: b"}, {strings.Repeat("X", 3000), strings.Repeat("x,", 1500)}, {"POST\r\nAccess-Control-Request-Method: GET", "a\r\nAccess-Control-Request-Headers: b"},
	} {
		a := g.ask("OPTIONS", "/x", tool, "Access-Control-Request-Method: "+c.method, "Access-Control-Request-Headers: "+c.headers)
		if a.status != 204 || a.header.Get("Access-Control-Allow-Methods") != "" || a.header.Get("Access-Control-Allow-Headers") != "" {
			t.Errorf("%.40q: %+v", c, a)
		}
	}
	if a := g.ask("OPTIONS", "/x", tool, "Access-Control-Request-Method: GET"); a.header.Get("Access-Control-Allow-Methods") != "GET" ||
		a.header["Access-Control-Allow-Headers"] != nil || a.header["Access-Control-Allow-Private-Network"] != nil {
		t.Errorf("%+v", a)
	}
}

func TestCORSHeadersOutliveWhatReverseProxyDoes(t *testing.T) {
	g := newGate(t, guard.Policy{Origins: []string{"https://tool.example"}})
	for name, next := range map[string]http.HandlerFunc{
		"1xx, then headers cleared": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</x>")
			w.WriteHeader(http.StatusEarlyHints)
			clear(w.Header())
			w.WriteHeader(http.StatusTeapot)
		},
		"a body at once":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) },
		"a flush at once": func(w http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(w).Flush() },
		"headers and flush": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
		},
		"not a word": func(http.ResponseWriter, *http.Request) {},
	} {
		g.next = next
		if a := g.passes("GET", "/", tool); a.header.Get("Access-Control-Allow-Origin") != "https://tool.example" || len(a.header["Vary"]) != 1 {
			t.Errorf("%s: %v", name, a.header)
		}
	}
}

func TestOriginsThatNameNoneAreNotTaken(t *testing.T) {
	for _, origin := range []string{"*", "null", "", "tool.example", "https://", "https://tool.example/", "https://tool.example/x", "https://user@tool.example", "https://*.example", "//tool.example", "https://tool.example?"} {
		if _, err := newGuard(guard.Policy{Origins: []string{origin}}); err == nil || !strings.Contains(err.Error(), "origin") {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestRejectionsReachTheTraceWithTheRequestsContext(t *testing.T) {
	type key struct{}
	var got any
	g, err := newGuard(guard.Policy{Trace: guard.Trace{Denied: func(ctx context.Context, _ event.Code, _ bool) { got = ctx.Value(key{}) }}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(context.WithValue(t.Context(), key{}, "request 7"), "GET", "http://evil.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	g.Wrap(nil).ServeHTTP(nowhere{http.Header{}}, r)
	if got != "request 7" {
		t.Errorf("%v", got)
	}
}
