package guard_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"mimecast-proxy/account"
	"mimecast-proxy/guard"
	"mimecast-proxy/secret"
)

// nowhere is a ResponseWriter that does nothing, so that benchmarks measure only the guard.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// nowhereHandler sends an empty response.
type nowhereHandler struct{}

func (nowhereHandler) ServeHTTP(http.ResponseWriter, *http.Request) {}

// newRequest returns a request as net/http's server creates it.
func newRequest(tb testing.TB, method, target string) *http.Request {
	tb.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		tb.Fatal(err)
	}
	return &http.Request{Method: method, RequestURI: target, URL: u, Host: "127.0.0.1:8080", Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1}
}

// A request that passes gets a context with its account and client, which requires a copy
// of the request.
func TestPlainRequestAllocatesItsContextAlone(t *testing.T) {
	hundred, _ := manyClients(100)
	shared := new(account.Account)
	shared.SetShare(9, 0)
	for name, p := range map[string]guard.Policy{
		"open":  {MaxRequests: 1024, Hosts: []string{"mimecast.internal"}, Origins: []string{"https://tool.example"}},
		"keyed": {Clients: keyed("key")},
		"named": {Clients: append(hundred, guard.Client{Name: "key", Keys: keysOf("key"), MaxRequests: 9, Account: shared})},
	} {
		g, err := newGuard(p)
		if err != nil {
			t.Fatal(err)
		}
		h := g.Wrap(nowhereHandler{})
		r := newRequest(t, "GET", "/siem/v1/events/cg?types=x")
		r.Header.Set("Authorization", "Bearer key")
		if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(nowhere{}, r) }); n > 2 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkGuard measures the guard's cost for a request that passes, by the enabled
// checks.
func BenchmarkGuard(b *testing.B) {
	const text = "0123456789abcdef0123456789abcdef"
	key := keyed(text)
	proof := http.Header{"Authorization": {"Bearer " + text}, "Accept": {"*/*"}, "User-Agent": {"siem/1"}}
	for _, c := range []struct {
		name, target string
		policy       guard.Policy
		header       http.Header
	}{
		{"open", "/siem/v1/events/cg?types=x", guard.Policy{MaxRequests: 1024}, http.Header{}},
		{"escaped", "/a%2Fb/v1/events/cg?types=x", guard.Policy{}, http.Header{}},
		{"named", "/siem/v1/events/cg?types=x", guard.Policy{Hosts: []string{"mimecast.internal"}}, http.Header{}},
		{"page", "/siem/v1/events/cg", guard.Policy{Origins: []string{"https://tool.example"}}, http.Header{"Origin": {"https://tool.example"}}},
		{"key", "/siem/v1/events/cg", guard.Policy{Clients: key}, proof},
		{"routes", "/siem/v1/events/cg", guard.Policy{Routes: []string{"@read"}}, http.Header{}},
		{"everything", "/siem/v1/events/cg", guard.Policy{MaxRequests: 1024, Clients: key, Routes: []string{"@read"}}, proof},
	} {
		b.Run(c.name, func(b *testing.B) {
			passed := 0
			g, err := newGuard(c.policy)
			if err != nil {
				b.Fatal(err)
			}
			h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed++ }))
			r := newRequest(b, "GET", c.target)
			r.Header = c.header
			if len(c.policy.Hosts) > 0 {
				r.Host = c.policy.Hosts[0]
			}
			w := nowhere{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
			if passed < b.N {
				b.Fatalf("%d of %d passed", passed, b.N)
			}
		})
	}
}

// BenchmarkClients measures a request's cost by the number of clients and by which key it
// has.
func BenchmarkClients(b *testing.B) {
	for _, n := range []int{1, 100} {
		clients, keys := manyClients(n)
		g, err := guard.New(guard.Policy{Clients: clients})
		if err != nil {
			b.Fatal(err)
		}
		h := g.Wrap(nowhereHandler{})
		for name, key := range map[string]string{"first": keys[0][0], "last": keys[n-1][1], "token": guard.StubToken(secret.New(keys[n/2][0])).Reveal()} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				r := newRequest(b, "GET", "/siem/v1/events/cg")
				r.Header.Set("Authorization", "Bearer "+key)
				w := nowhere{http.Header{}}
				b.ReportAllocs()
				for b.Loop() {
					clear(w.h)
					h.ServeHTTP(w, r)
				}
				if len(w.h) > 0 {
					b.Fatalf("the request was rejected: %v", w.h)
				}
			})
		}
	}
}
