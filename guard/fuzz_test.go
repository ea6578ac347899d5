package guard_test

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/account"
	"mimecast-proxy/guard"
)

// passer returns a func that sends a request target to a guard with the policy, and reports
// whether the request passed.
func passer(f *testing.F, p guard.Policy) func(method, target string) bool {
	f.Helper()
	g, err := newGuard(p)
	if err != nil {
		f.Fatal(err)
	}
	passed := false
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
	return func(method, target string) bool {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return false // net/http responds with 400
		}
		host := u.Host
		if host == "" {
			host = "localhost"
		}
		passed = false
		h.ServeHTTP(nowhere{http.Header{}}, &http.Request{Method: method, RequestURI: target, URL: u, Host: host, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1})
		return passed
	}
}

// readings returns every path that a server could read in a request target, split into
// segments. It decodes up to six times, strictly or leniently, with and without backslashes
// as slashes, and with and without parameters.
func readings(t *testing.T, target string) (all [][]string) {
	p, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(p, "/") {
		_, rest, _ := strings.Cut(p, "://")
		p = "/"
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			p = rest[i:]
		}
	}
	for round := range 6 {
		slashed := strings.ReplaceAll(p, `\`, "/")
		for _, seen := range []string{p, slashed, cutParameters(p), cutParameters(slashed)} {
			segments := strings.Split(strings.Trim(path.Clean(seen), "/"), "/")
			for i := range segments {
				if round == 0 { // a server that splits first decodes each segment
					segments[i] = decodeLeniently(segments[i])
				}
			}
			all = append(all, segments)
		}
		if strict, err := url.PathUnescape(p); err == nil && strict != decodeLeniently(p) {
			t.Fatalf("%q is decoded to %q and to %q", p, strict, decodeLeniently(p))
		}
		p = decodeLeniently(p)
	}
	return all
}

var hostileTargets = []string{
	"/siem/a", "/siem/../x", "/siem/%2e%2e/x", "/siem%2f..%2fx", "/siem/..;/x", "/siem//x", "/siem/%252e%252e%252fx", `/siem/\..\x`, "/siem/%", "http://localhost/siem/x", "http://localhost?/siem/",
	"/siem/100%25/%252e%252e/x", "/siem/%25%32%65", "/siem;/x", "/siem/a%3f/../x", "/oauth/token", "/oauth%2ftoken;", "/siem/%c0%ae%c0%ae/x", "/a%2Fb\"", "/siem/a#/../..", "/v1/a%2Fb/c", "/v1/a/c", "/%73iem/x",
}

// FuzzRoutes checks that a target that passes is under an allowed route in every reading.
func FuzzRoutes(f *testing.F) {
	for _, s := range hostileTargets {
		f.Add("GET", s)
	}
	passes := passer(f, guard.Policy{Routes: []string{"GET /siem/", "/any/", "GET /v1/{id}/c"}})
	f.Fuzz(func(t *testing.T, method, target string) {
		if !passes(method, target) {
			return
		}
		get := method == "GET" || method == "HEAD"
		for _, s := range readings(t, target) {
			if s[0] != "any" && (!get || s[0] != "siem" && (len(s) != 3 || s[0] != "v1" || s[2] != "c")) {
				t.Fatalf("%s %q passed, and could be read as %q", method, target, s)
			}
		}
	})
}

// FuzzTarget allows all routes. It checks that in every reading, a target that passes has
// no dot segment or control character and is not the token endpoint.
func FuzzTarget(f *testing.F) {
	for _, s := range hostileTargets {
		f.Add(s)
	}
	passes := passer(f, guard.Policy{TokenStub: true})
	f.Fuzz(func(t *testing.T, target string) {
		if !passes("POST", target) {
			return
		}
		for _, s := range readings(t, target) {
			joined := "/" + strings.Join(s, "/")
			if strings.EqualFold(path.Clean(joined), "/oauth/token") || strings.ContainsAny(joined, "\x00\r\n\t\x7f") || strings.HasPrefix(target, "//") {
				t.Fatalf("%q passed, and could be read as %q", target, joined)
			}
			for _, name := range s {
				if name == ".." || name == "." {
					t.Fatalf("%q passed, and could be read as %q", target, joined)
				}
			}
		}
	})
}

func cutParameters(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// decodeLeniently decodes valid escapes and keeps the rest.
func decodeLeniently(p string) string {
	var out strings.Builder
	for p != "" {
		if len(p) >= 3 {
			if s, err := url.PathUnescape(p[:3]); p[0] == '%' && err == nil {
				out.WriteString(s)
				p = p[3:]
				continue
			}
		}
		out.WriteByte(p[0])
		p = p[1:]
	}
	return out.String()
}

// FuzzHost checks that a name that passes is a loopback name or the accepted name, for
// url.Parse too.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"localhost", "localhost:80", "[::1]:80", "127.0.0.1", "evil.example", "a.internal", "A.INTERNAL.:1", "x@localhost", "[::ffff:127.0.0.1]", "localhost:80:80", "", "[", "[]:", ".", "[::1%251]"} {
		f.Add(s)
	}
	g, err := newGuard(guard.Policy{Hosts: []string{"a.internal"}})
	if err != nil {
		f.Fatal(err)
	}
	passed := false
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true }))
	f.Fuzz(func(t *testing.T, host string) {
		passed = false
		r := newRequest(t, "GET", "/")
		r.Host = host
		h.ServeHTTP(nowhere{http.Header{}}, r)
		if !passed {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil || u.User != nil || u.Host != host {
			t.Fatalf("%q passed, and is %+v, %v", host, u, err)
		}
		name := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
		ip, err := netip.ParseAddr(name)
		if name != "localhost" && name != "a.internal" && (err != nil || !ip.Unmap().IsLoopback()) {
			t.Fatalf("%q passed", host)
		}
	})
}

// FuzzTokenRequest checks that a body without the key gets no token.
func FuzzTokenRequest(f *testing.F) {
	for _, s := range []string{"client_secret=the-key", "grant_type=x&client_secret=the%2Dkey", `{"client_secret":"the-key"}`, `{"client_secret":"the\u002dkey"}`, "client_secret=", "client_secret=%", "&&=", "{", "null", "client_secret=the-key&client_secret=x"} {
		f.Add([]byte(s), "")
	}
	f.Add([]byte(nil), "Basic eDp0aGUta2V5")
	g, err := newGuard(guard.Policy{TokenStub: true, Clients: keyed("the-key")})
	if err != nil {
		f.Fatal(err)
	}
	h := g.Wrap(nowhereHandler{})
	f.Fuzz(func(t *testing.T, body []byte, authorization string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/oauth/token", strings.NewReader(string(body)))
		r.Host = "localhost"
		r.Header.Set("Authorization", authorization)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		switch rec.Code {
		case 200:
			if !knowsKey(r, string(body)) {
				t.Fatalf("%q %q got a token", body, authorization)
			}
		case 400, 401:
		default:
			t.Fatalf("%q %q: %d", body, authorization, rec.Code)
		}
	})
}

// knowsKey reports whether the token request may contain the key, in any encoding.
func knowsKey(r *http.Request, body string) bool {
	_, password, _ := r.BasicAuth()
	form, _ := url.QueryUnescape(body)
	basic, _ := url.QueryUnescape(password)
	authorization := r.Header.Get("Authorization")
	return strings.Contains(body+form+password+basic+authorization, "the-key") || strings.HasPrefix(strings.TrimSpace(body), "{") && strings.Contains(body, `\u`) || strings.Contains(body, "%") && strings.Contains(body, "key")
}

// FuzzKeyHeaders checks that only a client's key makes a request the client's. No other
// headers may select a client.
func FuzzKeyHeaders(f *testing.F) {
	digests := [][sha256.Size]byte{sha256.Sum256([]byte("key-of-b"))}
	token := guard.StubToken(keysOf("key-of-a")[0]).Reveal()
	for _, s := range []string{"Bearer key-of-a", "Bearer key-of-b", "bearer  " + token, "Basic a2V5LW9mLWE6a2V5LW9mLWI=", "Basic Og==", "Bearer ", "key-of-a", "a", "Bearer b"} {
		f.Add(s, "")
		f.Add("", s)
	}
	f.Add("", "key-of-a")
	f.Add("Bearer key-of-b", "key-of-a")
	f.Add("", token)
	g, err := guard.New(guard.Policy{Clients: []guard.Client{named("a", "key-of-a"), {Name: "b", Digests: digests}, named("c"), named("d", "")}})
	if err != nil {
		f.Fatal(err)
	}
	client := ""
	h := g.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { client = account.ClientOf(r) }))
	f.Fuzz(func(t *testing.T, authorization, key string) {
		client = ""
		r := newRequest(t, "GET", "/")
		r.Header = http.Header{"Authorization": {authorization}}
		if key != "" {
			r.Header.Set("X-Proxy-Key", key)
		}
		h.ServeHTTP(nowhere{http.Header{}}, r)
		want := ""
		scheme, value, _ := strings.Cut(authorization, " ")
		_, password, _ := r.BasicAuth()
		for name, accepted := range map[string][]string{"a": {"key-of-a", token}, "b": {"key-of-b"}} {
			bearer := strings.EqualFold(scheme, "Bearer") && slices.Contains(accepted, strings.TrimLeft(value, " "))
			if key == accepted[0] || key == "" && (bearer || password == accepted[0]) {
				want = name
			}
		}
		if client != want && strings.TrimSpace(authorization) == authorization { // BasicAuth accepts only a single space
			t.Fatalf("%q %q is of client %q, want %q", authorization, key, client, want)
		}
		if client != "" && client != "a" && client != "b" {
			t.Fatalf("%q %q is of client %q", authorization, key, client)
		}
	})
}
