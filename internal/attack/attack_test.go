//go:build unix

package attack

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

func TestMain(m *testing.M) {
	os.Exit(program.Main(browser.M{M: m}))
}

// answer is a response.
type answer struct {
	status int
	code   string // error code of the proxy's own responses
	header http.Header
	body   string
}

// send writes raw bytes and returns the first n final responses, or fewer if the connection
// is closed earlier.
func send(t testing.TB, address, raw string, n int) []answer {
	t.Helper()
	conn := program.Dial(t, address)
	defer conn.Close()
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	var answers []answer
	for in := bufio.NewReader(conn); len(answers) < n; {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			break
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			t.Fatalf("%q opened a tunnel", raw)
		}
		if res.StatusCode < 200 {
			continue
		}
		body, _ := io.ReadAll(res.Body) // a response that is cut short counts too
		answers = append(answers, answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(body)})
	}
	return answers
}

// stand is a program under attack.
type stand struct {
	t   *testing.T
	sim *simulator.Server
	*program.Program
	denied  map[string]float64 // expected number of rejected requests by code
	browsed bool               // also expect the rejections in the log
}

func newStand(t *testing.T, environ ...string) *stand {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	s := &stand{t: t, sim: sim, Program: program.Serve(t, sim, environ...), denied: map[string]float64{}}
	t.Cleanup(s.counted)
	return s
}

// counted compares the counter of rejected requests with the expected numbers. If a browser
// may still be sending requests, it waits until they are equal.
func (s *stand) counted() {
	s.t.Helper()
	var got, want map[string]float64
	for deadline := time.Now().Add(program.Patience / 3); ; time.Sleep(10 * time.Millisecond) {
		got, want = map[string]float64{}, maps.Clone(s.denied)
		for _, l := range accessLines(s.Stderr.String()) {
			if s.browsed && l.Error != "" {
				want[l.Error] += float64(1 + l.Suppressed)
			}
		}
		maps.DeleteFunc(want, func(code string, _ float64) bool { return !slices.Contains(refusals, event.Code(code)) })
		for _, code := range refusals {
			if n := s.Metric(fmt.Sprintf("mimecast_proxy_requests_denied_total{reason=%q}", code)); n > 0 {
				got[string(code)] = n
			}
		}
		if maps.Equal(got, want) {
			return
		}
		if !s.browsed || time.Now().After(deadline) {
			s.t.Errorf("%v refusals were counted, and there were %v", got, want)
			return
		}
	}
}

// refusals are the error codes that the counter counts.
var refusals = []event.Code{
	event.BadRequest, event.BadRequestTarget, event.HeadersTooLarge, event.HostNotAllowed, event.OriginNotAllowed,
	event.APIKeyRequired, event.RouteNotAllowed, event.UpgradeNotSupported, event.TooBusy,
}

// arrived returns the requests that Mimecast got since the last call, except token
// requests. It checks that each had one valid bearer token.
func (s *stand) arrived() []simulator.Request {
	s.t.Helper()
	var asked []simulator.Request
	for _, r := range s.sim.Requests() {
		if r.Target == "/oauth/token" {
			continue
		}
		asked = append(asked, r)
		// Mimecast responds with 401 to a token that it did not issue.
		if a := r.Header["Authorization"]; len(a) != 1 || !strings.HasPrefix(a[0], "Bearer ") || r.Status == 401 {
			s.t.Errorf("%s %s arrived with Authorization %q and got %d", r.Method, r.Target, a, r.Status)
		}
	}
	s.sim.Reset()
	return asked
}

// refuses checks that raw bytes get the specified error response and that nothing goes
// upstream. The code is empty if net/http rejects the bytes or drops the connection.
func (s *stand) refuses(status int, code event.Code, raw string) {
	s.t.Helper()
	got := send(s.t, s.Listen, raw, 1)
	if code != "" {
		s.denied[string(code)]++
	}
	if len(got) != 1 || got[0].status != status || got[0].code != string(code) {
		s.t.Errorf("%.300q: %+v, want %d %s", raw, got, status, code)
	}
	if asked := s.arrived(); len(asked) > 0 {
		s.t.Errorf("%.300q reached Mimecast: %+v", raw, asked)
	}
}

// passes checks that raw bytes arrive as one request, and returns it.
func (s *stand) passes(raw string) simulator.Request {
	s.t.Helper()
	got := send(s.t, s.Listen, raw, 1)
	asked := s.arrived()
	if len(got) != 1 || got[0].code != "" || len(asked) != 1 {
		s.t.Fatalf("%.300q: %+v, and Mimecast got %+v", raw, got, asked)
	}
	return asked[0]
}

// request returns the bytes of a request without a body.
func request(line string, header ...string) string {
	return line + " HTTP/1.1\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n"
}

const (
	local  = "Host: localhost"
	whoami = "GET /identity/whoami"
)

func TestTargetWithMoreThanOneMeaningIsRefused(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	for _, target := range []string{
		// for another host
		"http://evil.example/identity/whoami", "http://evil.example", "https://localhost/", "http://localhost@evil.example/", "http://localhost:1@evil.example:80/",
		"http://localhost.evil.example/", "//evil.example/", "//localhost/identity/whoami", "///", "http://localhost//evil.example/", "ftp://localhost/",
		// dot segments
		"/identity/../siem", "/..", "/identity/./whoami", "/identity/%2e%2e/siem", "/identity/%2E./siem", "/identity/.%2e/siem", "/identity/..;/siem", "/identity/..;a=b/siem",
		"/identity/%252e%252e/siem", "/identity/%25252e%25252e/siem", "/identity/%c0%ae%c0%ae/siem",
		// escaped slashes and backslashes
		"/identity/..%2fsiem", "/identity%2F..%2Fsiem", "/identity/..%5csiem", `/identity/..\siem`, `/identity\..\siem`, "/identity/..%255csiem", "/%2e%2e%2fsiem",
		// control characters, and what is not a path
		"/identity%00", "/identity%0d%0aX:%20y", "/identity%0a", "/identity%7f", "/identity%09", "/identity#/siem",
	} {
		s.refuses(400, event.BadRequestTarget, request("GET "+target, local))
		s.refuses(400, event.BadRequestTarget, request("POST "+target, local, "Content-Length: 0"))
	}
	for _, line := range []string{"CONNECT evil.example:443", "CONNECT localhost:80", "CONNECT http://localhost/identity/whoami", "OPTIONS *", "GET *", "PRI /identity/whoami"} {
		s.refuses(400, event.BadRequestTarget, request(line, local))
	}
	s.refuses(400, event.BadRequestTarget, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
}

func TestWhatIsNoRequestGoesNowhere(t *testing.T) {
	suite.Slow(t)
	s := newStand(t)
	for raw, status := range map[string]int{
		request("GET /\x00", local):                               400,
		request("GET /\x7f", local):                               400,
		request("GET /a\rb", local):                               400,
		request("GET /%", local):                                  400,
		request("GET /%zz", local):                                400,
		request("GET /a b", local):                                400,
		request("GET identity", local):                            400,
		request("G(T /", local):                                   400,
		"GET /\r\n\r\n":                                           400,
		"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n":               505,
		request(whoami):                                           400, // without Host
		request(whoami, local, local):                             400,
		request(whoami, local, "Host: evil.example"):              400,
		request(whoami, "Host: localhost\x80"):                    400,
		request(whoami, local, "Authorization : x"):               400,
		request(whoami, local, " Authorization: x"):               400, // the first header line must not be folded
		request(whoami, local, "X: a\x00b"):                       400,
		request(whoami, local, "X: a\rAuthorization: x"):          400,
		request(whoami, local, "(: x"):                            400,
		request(whoami, local, "X: "+strings.Repeat("x", 80<<10)): 431,
		request("GET /"+strings.Repeat("x", 80<<10), local):       431,
		// bodies of ambiguous length
		request("POST /a", local, "Content-Length: 4", "Content-Length: 5") + "abcde":   400,
		request("POST /a", local, "Content-Length: 4, 5") + "abcde":                     400,
		request("POST /a", local, "Content-Length: +4") + "abcd":                        400,
		request("POST /a", local, "Content-Length: -1"):                                 400,
		request("POST /a", local, "Content-Length: 99999999999999999999"):               400,
		request("POST /a", local, "Transfer-Encoding: xchunked") + "0\r\n\r\n":          501,
		request("POST /a", local, "Transfer-Encoding: chunked, identity"):               501,
		request("POST /a", local, "Transfer-Encoding: identity"):                        501,
		request("POST /a", local, "Transfer-Encoding: chunked\x0b"):                     400,
		request("POST /a", local, "Transfer-Encoding: chunked", "Transfer-Encoding: x"): 501,
		request("POST /a", local, "Transfer-Encoding : chunked"):                        400,
	} {
		s.refuses(status, map[int]event.Code{400: event.BadRequest, 431: event.HeadersTooLarge}[status], raw)
	}
}

func TestNameThatIsNotTheProxysIsRefused(t *testing.T) {
	s := newStand(t)
	_, port, _ := net.SplitHostPort(s.Listen)
	for _, host := range []string{
		"evil.example", "evil.example:" + port, "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example", "0.0.0.0:" + port, "0", "127.1", "2130706433", "0x7f000001",
		"localhost:" + port + ":80", "localhost@evil.example", "evil.example@localhost", "localhost evil.example", "localhost, evil.example", "localhost/", "[::]", "169.254.169.254",
		"metadata.google.internal", "api.services.mimecast.com", "localhost..", ".localhost", "loc%61lhost", "[::ffff:1.2.3.4]", "",
	} {
		status, code := 403, event.HostNotAllowed
		if strings.ContainsAny(host, " /@") { // net/http rejects such a host
			status, code = 400, event.BadRequest
		}
		s.refuses(status, code, request(whoami, "Host: "+host))
		s.refuses(status, code, request("POST /oauth/token", "Host: "+host, "Content-Length: 0"))
	}
	for _, host := range []string{"localhost", "LOCALHOST:" + port, "localhost.", "127.0.0.1:" + port, "127.0.0.2", "[::1]:" + port, "localhost:1"} {
		s.passes(request(whoami, "Host: "+host))
	}
	// An absolute request target takes precedence over Host (RFC 9112, section 3.2.2).
	s.refuses(400, event.BadRequestTarget, request("GET http://evil.example/identity/whoami", "Host: localhost"))
	if r := s.passes(request("GET http://localhost/identity/whoami", "Host: evil.example")); r.Host != strings.TrimPrefix(s.sim.URL, "https://") || r.Target != "/identity/whoami" {
		t.Errorf("%+v", r)
	}
}

func TestNamesAreWhatWasConfigured(t *testing.T) {
	s := newStand(t, "PROXY_ALLOWED_HOSTS=proxy.internal")
	s.passes(request(whoami, "Host: PROXY.internal:1234"))
	s.refuses(403, event.HostNotAllowed, request(whoami, "Host: x.proxy.internal"))
	s.refuses(403, event.HostNotAllowed, request(whoami, "Host: proxy.internal.evil.example"))
}

func TestRequestOfAForeignPageIsRefused(t *testing.T) {
	s := newStand(t, "PROXY_ALLOWED_ORIGINS=https://tool.example")
	for _, marks := range [][]string{
		{"Origin: http://evil.example"}, {"Origin: null"}, {"Origin: "}, {"Origin: http://localhost:1"}, {"Origin: https://localhost"}, {"Origin: file://"},
		{"Origin: http://tool.example"}, {"Origin: https://tool.example.evil.example"}, {"Origin: https://tool.example:444"}, {"Origin: https://tool.example, http://evil.example"},
		{"Origin: https://tool.example", "Origin: http://evil.example"}, {"origin: http://evil.example"},
		{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Sec-Fetch-Site: "}, {"Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"}, {"sec-fetch-site: Cross-Site"},
		{"Sec-Fetch-Site: same-origin", "Origin: http://evil.example"},
	} {
		for _, line := range []string{whoami, "POST /oauth/token", "OPTIONS /identity/whoami", "DELETE /x"} {
			s.refuses(403, event.OriginNotAllowed, request(line, append(marks, local, "Content-Length: 0", "Access-Control-Request-Method: PUT")...))
		}
	}
}

func TestUpgradesOpenNoTunnel(t *testing.T) {
	s := newStand(t)
	for _, upgrade := range []string{"websocket", "WebSocket", "h2c, websocket", "foo", "connect-udp"} {
		s.refuses(501, event.UpgradeNotSupported, request(whoami, local, "Connection: Upgrade", "Upgrade: "+upgrade, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
	}
	// The proxy ignores an h2c upgrade, as it may, and does not forward the headers.
	r := s.passes(request(whoami, local, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"))
	for _, name := range []string{"Upgrade", "Http2-Settings", "Connection"} {
		if r.Header[name] != nil {
			t.Errorf("%s: %q arrived", name, r.Header[name])
		}
	}
}

func TestNothingButTheKeyProvesTheKey(t *testing.T) {
	const key = "the-right-key-of-this-proxy"
	s := newStand(t, "PROXY_API_KEY="+key)
	basic := func(pair string) string {
		return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
	}
	for _, proof := range [][]string{
		nil,
		{"Authorization: Bearer wrong"}, {"Authorization: Bearer "}, {"Authorization: Bearer"}, {"Authorization: " + key}, {"Authorization: MC " + key}, {"Authorization: Digest " + key},
		{"Authorization: Bearer " + key[1:]}, {"Authorization: Bearer " + key + "x"}, {"Authorization: Bearer " + strings.ToUpper(key)}, {"Authorization: Bearer mimecast-proxy-stub-token"},
		{basic("x:wrong")}, {basic(key + ":")}, {basic(key)}, {basic(":" + key + ":")}, {"Authorization: Basic " + key}, {"Authorization: Basic !!"},
		{"X-Proxy-Key: wrong"}, {"X-Proxy-Key: "}, {"X-Proxy-Key: Bearer " + key},
		{"X-Proxy-Key: " + key, "X-Proxy-Key: wrong"}, {"Authorization: Bearer " + key, "Authorization: Bearer " + key}, {"Authorization: Bearer " + key, "X-Proxy-Key: wrong"},
		{"Proxy-Authorization: Bearer " + key}, {"X_Proxy_Key: " + key}, {"Cookie: X-Proxy-Key=" + key}, {"X-Api-Key: " + key}, {"Authorization: Bearer " + key + ", Bearer wrong"},
	} {
		s.refuses(401, event.APIKeyRequired, request(whoami, append(proof, local)...))
	}
	s.refuses(401, event.APIKeyRequired, request("GET /identity/whoami?X-Proxy-Key="+key+"&access_token="+key, local))
	for _, proof := range []string{"Authorization: Bearer " + key, "authorization: bearer  " + key, basic("any:" + key), "x-proxy-key: " + key, "Authorization: Bearer\r\n " + key} {
		r := s.passes(request(whoami, local, proof, "Connection: X-Proxy-Key, Authorization"))
		if text := fmt.Sprint(r.Header); strings.Contains(text, key) || strings.Contains(text, "Proxy") {
			t.Errorf("%v arrived", r.Header)
		}
	}
}

func TestNoTrickGetsPastTheRoutes(t *testing.T) {
	s := newStand(t, "PROXY_ALLOW=GET /identity/, POST /api/audit/get-audit-events")
	for _, line := range []string{
		"GET /siem/v1/events", "POST /identity/whoami", "get /identity/whoami", "GET /Identity/whoami", "GET /identity", "GET /", "GET /api/audit/get-audit-events", "POST /api/audit/get-audit-events/x",
		"POST /api/audit/get-audit-eventsx", "DELETE /identity/whoami", "OPTIONS /identity/whoami", "TRACE /identity/whoami",
	} {
		s.refuses(403, event.RouteNotAllowed, request(line, local, "Content-Length: 0"))
	}
	for _, target := range []string{"/identity%2Fwhoami", "/identity%5cwhoami", "/identity;/whoami", `/identity\whoami`, "/identity%252fwhoami", "/x/../identity/whoami", "/identity/../siem/x", "/identity/..%2fsiem", "/identity//../x"} {
		s.refuses(400, event.BadRequestTarget, request("GET "+target, local))
	}
	for _, header := range []string{"X-HTTP-Method-Override: DELETE", "x-http-method: PUT", "X-Method-Override: POST", "X-Original-URL: /siem", "x-rewrite-url: /siem"} {
		s.refuses(403, event.RouteNotAllowed, request(whoami, local, header))
	}
	for _, line := range []string{"GET /oauth/token", "POST /oauth%2ftoken", "POST /OAUTH/token", "POST /oauth//token"} {
		s.refuses(403, event.RouteNotAllowed, request(line, local, "Content-Length: 0"))
	}
	s.passes(request(whoami, local))
}

func TestNothingOfTheClientsRemovesOrDoublesTheToken(t *testing.T) {
	s := newStand(t)
	const evil = "Bearer evil"
	for _, header := range [][]string{
		{"Authorization: " + evil}, {"authorization: " + evil}, {"AUTHORIZATION: " + evil}, {"Authorization: " + evil, "Authorization: " + evil}, {"Authorization: " + evil, "aUTHORIZATION: Basic evil"},
		{"Authorization: Bearer\r\n evil"}, {"Authorization:\r\n\t" + evil}, {"X: y\r\n Authorization: " + evil}, {"Authorization: MC evil:sig"},
		{"Connection: authorization"}, {"Connection: close, Authorization"}, {"Connection: Authorization", "Connection: keep-alive"}, {"Connection: Authorization, Content-Length, Host, Accept"},
		{"Connection: AUTHORIZATION", "Authorization: " + evil}, {"Proxy-Connection: Authorization"}, {"Keep-Alive: Authorization"}, {"Connection: Transfer-Encoding"},
		{"Trailer: Authorization"}, {"TE: trailers, Authorization"}, {"Proxy-Authorization: " + evil}, {"Proxy-Authenticate: " + evil},
		{"Cookie: a=evil", "Cookie: b=evil"}, {"Forwarded: for=evil;host=evil"}, {"X-Forwarded-For: evil", "X-Forwarded-Host: evil", "X-Forwarded-Proto: evil", "x-forwarded-evil: evil"},
		{"x-mc-app-id: evil", "x-mc-date: evil", "x-mc-req-id: evil"}, {"X-Proxy-Key: evil", "Connection: x-proxy-key"},
	} {
		r := s.passes(request(whoami, append(header, local)...))
		for name, values := range r.Header {
			if strings.Contains(fmt.Sprint(values), "evil") && name != "X" || r.Host == "evil" {
				t.Errorf("%q: %s: %q arrived", header, name, values)
			}
		}
	}
	if r := s.passes(request(whoami, local, "x-mc-arg: sum", "X-MC-AccountCode: C1")); r.Header.Get("X-Mc-Arg") != "sum" || r.Header.Get("X-Mc-Accountcode") != "C1" {
		t.Errorf("%v", r.Header)
	}
	// Lines that end in a bare LF are accepted as lines, as Mimecast also does.
	s.passes("GET /identity/whoami HTTP/1.1\nHost: localhost\nAuthorization: Bearer evil\nConnection: Authorization\n\n")
	r := s.passes(request("POST /_simulator/echo", local, "Transfer-Encoding: chunked", "Trailer: Authorization", "Connection: Trailer") + "1\r\nx\r\n0\r\nAuthorization: Bearer evil\r\nx-mc-date: evil\r\n\r\n")
	if len(r.Trailer) > 0 || r.BodyLength != 1 {
		t.Errorf("%+v", r)
	}
}

// A request within another one must not bypass the checks of the outer one.
func TestNoRequestIsSmuggledInAnother(t *testing.T) {
	s := newStand(t)
	const (
		inner = "GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
		last  = "GET /last HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
	)
	body := fmt.Sprintf("Content-Length: %d", len(inner))
	for name, c := range map[string]struct {
		raw     string
		arrives int
	}{
		"in the body of a request that is refused":     {request("POST /x", "Host: evil.example", body) + inner + last, 0},
		"in the body of a request that passes":         {request("POST /_simulator/echo", local, body) + inner + last, 1},
		"behind the last chunk, with a length":         {request("POST /_simulator/echo", local, body, "Transfer-Encoding: chunked") + "0\r\n\r\n" + inner + last, 1},
		"behind a length of 0":                         {request("POST /_simulator/echo", local, "Content-Length: 0", "Content-Length: 0") + inner + last, 1},
		"in the body of a GET":                         {request("GET /_simulator/echo", local, body) + inner + last, 1},
		"behind a chunk's size in another notation":    {request("POST /_simulator/echo", local, "Transfer-Encoding: chunked") + "0x10\r\n" + inner + last, 0},
		"behind a chunk's extension with a line break": {request("POST /_simulator/echo", local, "Transfer-Encoding: chunked") + "1;a\nb\r\nx\r\n0\r\n\r\n" + inner + last, 0},
		"behind a chunk without its end":               {request("POST /_simulator/echo", local, "Transfer-Encoding: chunked") + "1\r\nx0\r\n\r\n" + inner + last, 0},
		"behind an HTTP/1.0 body in chunks":            {"POST /_simulator/echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner + last, 1},
		"behind a refused upgrade":                     {request(whoami, local, "Connection: Upgrade", "Upgrade: websocket") + inner + last, 0},
		"behind an offer of HTTP/2":                    {request("GET /_simulator/echo", local, "Connection: Upgrade", "Upgrade: h2c") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + inner + last, 1},
		"in the body of an OPTIONS *":                  {request("OPTIONS *", local, body) + inner + last, 0},
	} {
		for _, a := range send(t, s.Listen, c.raw, 5) {
			s.denied[a.code]++
		}
		asked := s.arrived()
		if len(asked) != c.arrives {
			t.Errorf("%s: Mimecast got %+v", name, asked)
		}
		for _, r := range asked {
			if r.Target != "/_simulator/echo" {
				t.Errorf("%s: Mimecast got %s", name, r.Target)
			}
		}
	}
}

// A response must not lead the token to another host or set anything in a browser. This
// includes a server that impersonates Mimecast.
func TestTokenGoesToNoOtherHost(t *testing.T) {
	s := newStand(t)
	asked := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- fmt.Sprint(r.URL, r.Header) }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308, 401} {
		path := fmt.Sprintf("/led/%d", status)
		s.sim.AddFault(simulator.Fault{Path: path, Status: status, Header: map[string]string{
			"Location": elsewhere.URL + "/x", "Refresh": "0; url=" + elsewhere.URL, "Alt-Svc": `h2="` + elsewhere.URL + `"`,
			"Set-Cookie": "a=b", "Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true",
		}})
		got := send(t, s.Listen, request("GET "+path, local), 1)
		if len(got) != 1 || got[0].status != status || got[0].header.Get("Location") != elsewhere.URL+"/x" {
			t.Errorf("%d: %+v", status, got)
			continue
		}
		for _, name := range []string{"Set-Cookie", "Alt-Svc", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
			if got[0].header[name] != nil {
				t.Errorf("%d: the client gets %s: %q", status, name, got[0].header[name])
			}
		}
	}
	select {
	case r := <-asked:
		t.Errorf("another host was asked: %s", r)
	default:
	}
}
