package guard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/guard"
)

// token requests a token from the stub and returns it.
func (g *gate) token(status int, body string, headers ...string) string {
	g.t.Helper()
	a := g.raw("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n" +
		strings.Join(append(headers, "X: y"), "\r\n") + "\r\n\r\n" + body)
	if a.status != status || g.through() != nil {
		g.t.Errorf("%.80q %q: %d %s", body, headers, a.status, a.body)
	}
	if status != 200 {
		return ""
	}
	var grant map[string]any
	if err := json.Unmarshal([]byte(a.body), &grant); err != nil {
		g.t.Fatal(err)
	}
	token, _ := grant["access_token"].(string)
	if len(grant) != 4 || token == "" || grant["token_type"] != "Bearer" || grant["expires_in"] != 1799.0 || grant["scope"] != "" ||
		a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" || a.code != "" {
		g.t.Errorf("%s %v", a.body, a.header)
	}
	return token
}

func TestStubGivesAnyoneAHarmlessTokenWhereNoKeyIsWanted(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Routes: []string{"GET /siem/"}})
	for _, body := range []string{"grant_type=client_credentials&client_id=dummy&client_secret=dummy", "", "grant_type=password", "\x00", strings.Repeat("x", 200<<10)} {
		if token := g.token(200, body); token != "mimecast-proxy-stub-token" {
			t.Errorf("%.40q: %q", body, token)
		}
	}
	g.passes("GET", "/siem/x", "Authorization: Bearer mimecast-proxy-stub-token")
	a := g.ask("POST", "/oauth/token?grant_type=client_credentials", "Content-Length: 0")
	if a.status != 200 || g.through() != nil {
		t.Errorf("%+v", a)
	}
}

func TestClientLibraryGetsItsTokenAndItsRequestThrough(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed(theKey)})
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader, oauth2.AuthStyleAutoDetect} {
		config := clientcredentials.Config{ClientID: "any", ClientSecret: theKey, TokenURL: g.srv.URL + "/oauth/token", AuthStyle: style}
		ctx := context.WithValue(t.Context(), oauth2.HTTPClient, g.srv.Client())
		res, err := config.Client(ctx).Get(g.srv.URL + "/siem")
		if err != nil {
			t.Fatalf("style %v: %v", style, err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || len(g.through()) != 1 {
			t.Errorf("style %v: %d", style, res.StatusCode)
		}
	}
}

func TestStubTakesTheKeyAsTheClientSecret(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed(theKey)})
	quoted, err := json.Marshal(theKey)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]bool{}
	for _, c := range []struct {
		body    string
		headers []string
	}{
		{"grant_type=client_credentials&client_id=x&client_secret=" + url.QueryEscape(theKey), []string{"Content-Type: application/x-www-form-urlencoded"}},
		{"client_secret=" + url.QueryEscape(theKey), nil},
		{`{"client_id":"x","client_secret":` + string(quoted) + `,"scope":7}`, []string{"Content-Type: application/json"}},
		{`{"client_secret":` + string(quoted) + `}`, []string{"Content-Type: application/x-www-form-urlencoded"}},
		{"", []string{basic("id:" + theKey)}},
		{"", []string{basic(url.QueryEscape("id") + ":" + url.QueryEscape(theKey))}},
		{"client_secret=x", []string{basic("id:" + theKey)}},
		{"", []string{"X-Proxy-Key: " + theKey}},
		{"", []string{"Authorization: Bearer " + theKey}},
	} {
		tokens[g.token(200, c.body, c.headers...)] = true
	}
	if len(tokens) != 1 {
		t.Errorf("%d tokens for one key", len(tokens))
	}
}

func TestStubTakesAKeyThatTheClientForgotToEscape(t *testing.T) {
	const key = "base64+like/key=="
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed(key)})
	g.token(200, "client_id=x&client_secret="+key)
	g.token(200, "client_secret="+url.QueryEscape(key)+"&client_id=x")
}

func TestStubRejectsWhoDoesNotKnowTheKey(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed("the-key")})
	for _, c := range []struct {
		body    string
		headers []string
	}{
		{"", nil}, {"grant_type=client_credentials&client_id=the-key&client_secret=wrong", nil}, {"client_secret=", nil}, {"client_secret", nil}, {"client_id=the-key", nil},
		{"client_secret=the-key&client_secret=the-key", nil}, {"client_secret=wrong&client_secret=the-key", nil}, {"client_secret=the-key&client_secret=wrong", nil},
		{"xclient_secret=the-key", nil}, {"client_secret=the-ke%", nil}, {"the-key", nil},
		{`{"client_secret":"wrong"}`, nil}, {`{"client_secret":`, nil}, {`["the-key"]`, nil}, {`{"client_secret":["the-key"]}`, nil}, {"null", nil}, {`"the-key"`, nil},
		{"", []string{basic("the-key:wrong")}}, {"", []string{"Authorization: Bearer wrong"}}, {"", []string{"X-Proxy-Key: wrong"}},
	} {
		a := g.raw("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " + fmt.Sprint(len(c.body)) + "\r\n" + strings.Join(append(c.headers, "X: y"), "\r\n") + "\r\n\r\n" + c.body)
		if a.status != 401 || a.code != "api_key_required" || len(a.header["Www-Authenticate"]) != 2 || strings.Contains(a.body, "the-key") {
			t.Errorf("%q %q: %+v", c.body, c.headers, a)
		}
		if denied := g.reported(); fmt.Sprint(denied) != "[api_key_required]" {
			t.Errorf("reported %v", denied)
		}
	}
}

func TestTokenRequestIsBounded(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Clients: keyed("the-key")})
	g.token(200, "x="+strings.Repeat("x", 60<<10)+"&client_secret=the-key")
	a := g.raw("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 70<<10))
	if a.status != 400 || a.code != "bad_request_body" {
		t.Errorf("%+v", a)
	}
	a = g.raw("POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	if a.status != 400 || a.code != "bad_request_body" {
		t.Errorf("%+v", a)
	}
}

// one is a listener that accepts one connection.
type one struct {
	conn chan net.Conn
	done chan struct{}
}

func (l one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l one) Close() error   { close(l.done); return nil }
func (l one) Addr() net.Addr { return &net.TCPAddr{} }

func TestBodyThatDawdlesIsCutAfterTenSeconds(t *testing.T) {
	for line, want := range map[string]int{"POST /oauth/token": 400, "POST /": 401, "GET //": 400, "OPTIONS *": 400} {
		synctest.Test(t, func(t *testing.T) {
			g, err := newGuard(guard.Policy{TokenStub: true, Clients: keyed("the-key")})
			if err != nil {
				t.Fatal(err)
			}
			client, server := net.Pipe()
			l := one{make(chan net.Conn, 1), make(chan struct{})}
			l.conn <- server
			srv := &http.Server{Handler: g.Wrap(nowhereHandler{}), DisableGeneralOptionsHandler: true}
			served := make(chan error)
			go func() { served <- srv.Serve(l) }()
			start := time.Now()
			fmt.Fprint(client, line+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nclient_secret=")
			answer, err := io.ReadAll(client)
			// Since Go 1.26.11, the server lingers for half a second after closing a partly
			// read body.
			if took := time.Since(start); err != nil || took < 10*time.Second || took > 10*time.Second+500*time.Millisecond || !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", want)) {
				t.Errorf("%s: %q and the end after %v, %v", line, answer, took, err)
			}
			client.Close()
			srv.Close()
			<-served
		})
	}
}

func TestTokenRequestsThatDawdleLeaveRoomForOthers(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, MaxRequests: 8, Clients: keyed("the-key")})
	const request = "POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nclient_secret="
	var dawdlers []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", g.srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, request)
		dawdlers = append(dawdlers, conn)
	}
	for deadline := time.Now().Add(5 * time.Second); g.guard.Unauthenticated() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the token requests did not arrive")
		}
	}
	for range 20 { // rejected requests take no place
		a := g.ask("POST", "/oauth/token", "Content-Length: 2")
		if a.status != 503 || a.code != "too_busy" || a.header.Get("Retry-After") == "" {
			t.Fatalf("%+v", a)
		}
	}
	g.passes("GET", "/", "X-Proxy-Key: the-key")
	g.token(200, "", "X-Proxy-Key: the-key")
	for _, conn := range dawdlers {
		conn.Close()
	}
	for deadline := time.Now().Add(5 * time.Second); g.guard.Unauthenticated() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the token requests hold their places")
		}
	}
	g.token(200, "client_secret=the-key")
}

func TestTokenOfTheStubProvesTheKeyOnEveryReplica(t *testing.T) {
	policy := guard.Policy{TokenStub: true, Clients: keyed("the-key")}
	token := newGate(t, policy).token(200, "client_secret=the-key")
	if strings.Contains(token, "the-key") || len(token) < 40 {
		t.Errorf("token %q", token)
	}
	replica := newGate(t, policy) // or the same proxy after a restart
	replica.passes("GET", "/", "Authorization: Bearer "+token)
	replica.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: "+token)
	replica.rejects(event.APIKeyRequired, "GET", "/", "Authorization: Bearer "+token[1:])
	other := newGate(t, guard.Policy{TokenStub: true, Clients: keyed("other-key")})
	other.rejects(event.APIKeyRequired, "GET", "/", "Authorization: Bearer "+token)
	if other.token(200, "client_secret=other-key") == token {
		t.Error("two keys, one token")
	}
}

func TestNoTokenRequestGetsThrough(t *testing.T) {
	for _, stub := range []bool{true, false} {
		for _, report := range []bool{true, false} {
			g := newGate(t, guard.Policy{TokenStub: stub, ReportOnly: report, Routes: []string{"/"}})
			for _, method := range []string{"GET", "HEAD", "PUT", "OPTIONS", "post", "DELETE"} {
				g.rejects(event.RouteNotAllowed, method, "/oauth/token", "Content-Length: 0")
			}
			for _, target := range []string{
				"/oauth/token/", "/oauth/token/x", "/oauth//token", "/oauth/token//", "/OAuth/Token", "/oauth/TOKEN?x", "/oauth/to\u212Aen", "/%6fauth/token", "/oauth/%74oken", "/oauth%2Ftoken", "/oauth%2ftoken%2f",
				"/oauth%252ftoken", "/oauth/toke%256e", "/%254Fauth/token", `/oauth\token`, "/oauth%5ctoken", "/oauth/token%5c", "/oauth/token;x=1", "/oauth;x/token", "/oauth/;/token", "/%4Fauth/token%3by=1",
				"/oauth/token%3fx", "/oauth/token%23", "/;/oauth/token", "/%2foauth/token", "/oauth/token%2Fx", "http://localhost/oauth/token/", "http://localhost/oauth//token",
			} {
				g.rejects(event.RouteNotAllowed, "POST", target, "Content-Length: 0")
			}
			g.rejects(event.BadRequestTarget, "POST", "/x/../oauth/token", "Content-Length: 0")
			for _, target := range []string{"/oauth/token", "http://localhost:1/oauth/token", "/oauth/token?x=y"} {
				a := g.ask("POST", target, "Content-Length: 0")
				if passed := g.through(); passed != nil || (a.status == 200) != stub || !stub && (a.code != "route_not_allowed" || !strings.Contains(a.body, "PROXY_TOKEN_STUB")) {
					t.Errorf("stub %v: %s: %+v, %q got through", stub, target, a, passed)
				}
			}
			for _, target := range []string{"/oauth/tokens", "/oauth", "/oauth/", "/x/oauth/token", "/oauth/tokenx/", "/oauth2/token", "/oauth/token%20x"} {
				g.passes("GET", target)
			}
		}
	}
}

func TestNoRequestReachesATokenEndpointOfAnotherPath(t *testing.T) {
	for _, path := range []string{"/auth/Token", "auth/token/", "//auth/./token"} {
		g := newGate(t, guard.Policy{TokenStub: true, Clients: []guard.Client{{Keys: keysOf("k"), Account: &account.Account{TokenPath: path}}}})
		for _, target := range []string{
			"/auth/token", "/auth/token/", "/auth/token/x", "/AUTH/token?x=y", "/auth/to%6ben", "/auth%2Ftoken", "/auth%252ftoken", "/auth//token", `/auth\token`, "/auth/token;x", "/auth;y/token", "/auth/token%3fx", "http://localhost/auth/token",
		} {
			for _, method := range []string{"POST", "GET"} {
				g.rejects(event.RouteNotAllowed, method, target, "X-Proxy-Key: k", "Content-Length: 0")
			}
		}
		g.token(200, "client_secret=k") // still at /oauth/token
		for _, target := range []string{"/auth/tokens", "/auth", "/auth/", "/x/auth/token"} {
			g.passes("GET", target, "X-Proxy-Key: k")
		}
	}
	root := newGate(t, guard.Policy{Clients: []guard.Client{{Account: &account.Account{TokenPath: "/"}}}})
	root.rejects(event.RouteNotAllowed, "POST", "/", "Content-Length: 0")
	root.passes("GET", "/x")
}

func TestStubAsksForHostAndOriginButNotForARoute(t *testing.T) {
	g := newGate(t, guard.Policy{TokenStub: true, Routes: []string{"GET /siem/"}})
	g.rejects(event.HostNotAllowed, "POST", "/oauth/token", "Host: evil.example", "Content-Length: 0")
	g.rejects(event.OriginNotAllowed, "POST", "/oauth/token", evil, "Content-Length: 0")
	g.token(200, "")
}
