//go:build unix

package attack

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
)

const (
	siemKey  = "the-key-of-the-siem-0123456789"
	otherKey = "the-key-of-another-0123456789"
	goneKey  = "the-key-that-is-removed-0123456789"
)

// clientsFile is a clients file with a client that may only read SIEM logs, and others.
type clientsFile struct{ path string }

func newClientsFile(t *testing.T) clientsFile {
	t.Helper()
	f := clientsFile{filepath.Join(t.TempDir(), "clients.yaml")}
	f.write(t, siemKey, goneKey)
	return f
}

// write replaces the file by one in which the client has the given keys.
func (f clientsFile) write(t *testing.T, keys ...string) {
	t.Helper()
	var items []string
	for _, key := range keys {
		items = append(items, "{sha256: "+digest(key)+"}")
	}
	text := fmt.Sprintf("clients:\n  collector: {keys: [%s], allow: [\"@siem\"]}\n  reports: {keys: [{sha256: %s}], allow: [GET /identity/]}\n  second: {keys: [{sha256: %s}], allow: [\"@siem\"]}\n",
		strings.Join(items, ", "), digest(otherKey), digest(otherKey+"2"))
	if err := os.WriteFile(f.path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		t.Fatal(err)
	}
}

func digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func (f clientsFile) stand(t *testing.T, environ ...string) *stand {
	t.Helper()
	return newStand(t, append(environ, "PROXY_CLIENTS_FILE="+f.path)...)
}

// siemAlone reports whether @siem allows a request that arrived.
func siemAlone(method, target string) bool {
	path, _, _ := strings.Cut(target, "?")
	return method == http.MethodGet && strings.HasPrefix(path, "/siem/") || slices.Contains(mimecast.Presets["@siem"], method+" "+path)
}

// otherFunctions returns request lines that other presets allow.
func otherFunctions() (lines []string) {
	for _, routes := range mimecast.Presets {
		for _, route := range routes {
			if line := strings.TrimSuffix(route, "{$}"); route != mimecast.EveryGET && !slices.Contains(mimecast.Presets["@siem"], route) {
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func TestClientOfTheSIEMGetsNothingElse(t *testing.T) {
	t.Parallel()
	s := newClientsFile(t).stand(t)
	key := "X-Proxy-Key: " + siemKey
	lines := append(otherFunctions(), whoami, "GET /", "GET /siem", "get /siem/v1/events/cg", "POST /siem/v1/events/cg", "DELETE /siem/v1/events/cg", "OPTIONS /siem/v1/events/cg", "TRACE /siem/v1/events/cg",
		"GET /SIEM/v1/events/cg", "GET /Siem/v1/events/cg", "GET /api/audit/get-siem-logs", "POST /api/audit/get-siem-logsx", "POST /api/audit/get-siem-logs/x", "POST /api/audit/get-audit-events", "GET /oauth/token", "POST /oauth//token", "GET /batch/x", "GET /identity%2Fwhoami")
	for _, line := range lines {
		s.refuses(403, event.RouteNotAllowed, request(line, local, key, "Content-Length: 0"))
	}
	for _, header := range []string{"X-HTTP-Method-Override: GET", "X-Original-URL: /siem/v1/events/cg", "X-Rewrite-URL: /siem/v1/events/cg", "X-Client: reports", "Referer: http://localhost/siem/", "Authorization: Bearer " + otherKey} {
		s.refuses(403, event.RouteNotAllowed, request(whoami, local, key, header))
	}
	for _, target := range []string{
		"/siem/../identity/whoami", "/siem/..%2fidentity/whoami", "/siem/%2e%2e/identity/whoami", "/siem/..;/identity/whoami", `/siem/..\identity\whoami`, "/siem/..%5cidentity", "/siem/%252e%252e/identity/whoami",
		"/siem//../identity/whoami", "/siem%2f..%2fidentity", "/siem/.%2e/identity", "/siem/%c0%ae%c0%ae/identity", "/siem/./../identity/whoami", "//siem/v1", "/siem/x%00", "/siem%2Fv1", "/identity/..%2fsiem/",
	} {
		s.refuses(400, event.BadRequestTarget, request("GET "+target, local, key))
	}
	s.refuses(403, event.HostNotAllowed, request("GET /siem/v1/events/cg", "Host: evil.example", key))
	s.refuses(403, event.OriginNotAllowed, request("GET /siem/v1/events/cg", local, key, "Origin: https://evil.example"))
	s.refuses(501, event.UpgradeNotSupported, request("GET /siem/v1/events/cg", local, key, "Connection: Upgrade", "Upgrade: websocket"))
	for _, raw := range []string{"GET /siem/v1/events/cg?types=receipt", "GET /siem/v1/batch/events/cg?type=receipt", "GET /siem/x?to=/identity/whoami"} {
		if r := s.passes(request(raw, local, key)); !siemAlone(r.Method, r.Target) {
			t.Errorf("%s %s arrived", r.Method, r.Target)
		}
	}
	smuggled := request(whoami, local, key)
	for _, a := range send(t, s.Listen, request("GET /siem/v1/events/cg", local, key, fmt.Sprintf("Content-Length: %d", len(smuggled)))+smuggled+request(whoami, local, key, "Connection: close"), 3) {
		if a.code != "" {
			s.denied[a.code]++
		}
	}
	for _, r := range s.arrived() {
		if !siemAlone(r.Method, r.Target) {
			t.Errorf("%s %s arrived", r.Method, r.Target)
		}
	}
	if n := s.Metric(`mimecast_proxy_client_denied_total{client="collector",reason="route_not_allowed"}`); n == 0 {
		t.Error("what the client was denied is not counted as its own")
	}
}

// An attacker must not learn how close a guess was, or that a key was once valid.
func TestWrongKeysGetNoHint(t *testing.T) {
	t.Parallel()
	f := newClientsFile(t)
	s := f.stand(t)
	f.write(t, siemKey)
	s.awaitGone()
	var first string
	for _, key := range []string{"x", siemKey[1:], siemKey + "x", siemKey[:len(siemKey)-1], strings.ToUpper(siemKey), digest(siemKey), "sha256:" + digest(siemKey), goneKey, "collector", "mimecast-proxy-stub-token", strings.Repeat("x", 5000)} {
		for _, form := range []string{"X-Proxy-Key: " + key, "Authorization: Bearer " + key} {
			got := send(t, s.Listen, request("GET /siem/v1/events/cg", local, form), 1)
			s.denied[string(event.APIKeyRequired)]++
			if len(got) != 1 || got[0].status != 401 {
				t.Fatalf("%.60q: %+v", form, got)
			}
			for _, name := range []string{"Date", "X-Request-Id"} {
				got[0].body = strings.ReplaceAll(got[0].body, got[0].header.Get(name), "")
				got[0].header.Del(name)
			}
			said := fmt.Sprint(got[0].header, got[0].body)
			if first == "" {
				first = said
			}
			if said != first {
				t.Errorf("%.60q differs:\n%s\n%s", form, said, first)
			}
			for _, secret := range []string{"collector", "reports", "@siem", siemKey, digest(siemKey)} {
				if strings.Contains(said, secret) {
					t.Errorf("%.60q: the response names %s", form, secret)
				}
			}
		}
	}
	if asked := s.arrived(); len(asked) > 0 {
		t.Errorf("%+v", asked)
	}
}

// awaitGone makes the proxy reload its files, and waits until it rejects the removed key.
func (s *stand) awaitGone() {
	s.t.Helper()
	s.Signal(syscall.SIGHUP)
	program.Await(s.t, "the end of the key", func() bool {
		got := send(s.t, s.Listen, request("GET /siem/v1/events/cg", local, "X-Proxy-Key: "+goneKey), 1)
		if len(got) == 1 && got[0].status == 401 {
			s.denied[string(event.APIKeyRequired)]++
			return true
		}
		return false
	})
	s.arrived()
}

var (
	secureAddress    = regexp.MustCompile(`"also_listening":"tls:([^"]+)"`)
	interceptAddress = regexp.MustCompile(`"intercepting":"([^"]+)"`)
)

// at returns the address that an expression finds in the log.
func (s *stand) at(expression *regexp.Regexp) string {
	s.t.Helper()
	found := expression.FindStringSubmatch(s.Stderr.String())
	if found == nil {
		s.t.Fatalf("nothing in the log is %v", expression)
	}
	return found[1]
}

// client returns a client that trusts the proxy's CA, and optionally uses a forward proxy.
func (s *stand) client(via *url.URL) *http.Client {
	s.t.Helper()
	_, certificate := s.AdminGet("/ca.pem")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		s.t.Fatalf("/ca.pem is %q", certificate)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true} //nolint:gosec // Go's default minimum is right
	if via != nil {
		transport.Proxy = http.ProxyURL(via)
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask returns a response's status and protocol, and whether its connection was reused.
func ask(t *testing.T, client *http.Client, address, key string) (status int, proto string, reused bool) {
	t.Helper()
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/siem/v1/events/cg?types=receipt", nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-Proxy-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Proto, reused
}

func TestRemovedKeyIsRefusedOnConnectionsThatItOpened(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	f := newClientsFile(t)
	s := f.stand(t, "PROXY_TLS_LISTEN=127.0.0.1:0", "PROXY_INTERCEPT_LISTEN=127.0.0.1:0")
	_, port, err := net.SplitHostPort(s.at(secureAddress))
	if err != nil {
		t.Fatal(err)
	}
	tunnel := &url.URL{Scheme: "http", Host: s.at(interceptAddress), User: url.UserPassword("any", goneKey)}
	const plain, secure, tunneled = "HTTP/1.1", "HTTP/2 with TLS", "tunnel"
	open := map[string]func() (int, string, bool){}
	for name, way := range map[string]struct {
		client       *http.Client
		address, key string
	}{
		plain:    {s.Client, s.URL, goneKey},
		secure:   {s.client(nil), "https://localhost:" + port, goneKey},
		tunneled: {s.client(tunnel), "https://eu-api.mimecast.com", ""},
	} {
		open[name] = func() (int, string, bool) { return ask(t, way.client, way.address, way.key) }
		if status, proto, _ := open[name](); status != 200 || name == secure && proto != "HTTP/2.0" {
			t.Fatalf("%s: %d %s", name, status, proto)
		}
	}
	conn := program.Dial(t, s.Listen)
	in := bufio.NewReader(conn)
	onConn := func() int {
		if _, err := io.WriteString(conn, request("GET /siem/v1/events/cg", local, "X-Proxy-Key: "+goneKey)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	if status := onConn(); status != 200 {
		t.Fatalf("%d", status)
	}
	f.write(t, siemKey)
	s.awaitGone()
	if status := onConn(); status != 401 {
		t.Errorf("on the same connection: %d", status)
	}
	s.denied[string(event.APIKeyRequired)]++
	for name, again := range open {
		want := 401
		if name == tunneled {
			want = 407 // refusals does not contain this code
		} else {
			s.denied[string(event.APIKeyRequired)]++
		}
		if status, _, reused := again(); status != want || !reused {
			t.Errorf("%s: %d, on the same connection: %v", name, status, reused)
		}
	}
	if asked := s.arrived(); len(asked) > 0 {
		t.Errorf("%+v", asked)
	}
}

func TestBatchURLOfAnotherClientNeedsItsRoute(t *testing.T) {
	t.Parallel()
	s := newClientsFile(t).stand(t, "PROXY_BATCH_RELAY=true")
	got := send(t, s.Listen, request("GET /siem/v1/batch/events/cg?type=receipt&pageSize=1", local, "X-Proxy-Key: "+siemKey), 1)
	var list struct {
		Value []struct{ URL string }
	}
	if len(got) != 1 || json.Unmarshal([]byte(got[0].body), &list) != nil || len(list.Value) == 0 {
		t.Fatalf("%+v", got)
	}
	_, path, ok := strings.Cut(list.Value[0].URL, "/batch/")
	if !ok {
		t.Fatalf("the list has %s", list.Value[0].URL)
	}
	s.arrived()
	line := "GET /batch/" + path
	s.refuses(401, event.APIKeyRequired, request(line, local))
	s.refuses(401, event.APIKeyRequired, request(line, local, "X-Proxy-Key: "+path))
	s.refuses(403, event.RouteNotAllowed, request(line, local, "X-Proxy-Key: "+otherKey))
	for _, key := range []string{siemKey, otherKey + "2"} { // both may use it
		if got := send(t, s.Listen, request(line, local, "X-Proxy-Key: "+key), 1); len(got) != 1 || got[0].status != 200 {
			t.Errorf("%+v", got)
		}
	}
	s.sim.Reset()
}
