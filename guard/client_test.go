package guard_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/guard"
	"mimecast-proxy/problem"
)

// named returns a client with a name and keys.
func named(name string, keys ...string) guard.Client {
	return guard.Client{Name: name, Keys: keysOf(keys...)}
}

// call sends a request to a handler and returns the response.
func call(t *testing.T, h http.Handler, method, target, body string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Host = "localhost"
	r.Header = header
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// withKey returns a header with a key.
func withKey(key string) http.Header { return http.Header{"X-Proxy-Key": {key}} }

// manyClients returns clients c0, c1, … with two keys each. The guard knows the second key
// only by its digest. Odd clients use account a1, even ones a0.
func manyClients(n int) (clients []guard.Client, keys [][2]string) {
	accounts := []*account.Account{{Name: "a0"}, {Name: "a1"}}
	for i := range n {
		own := [2]string{fmt.Sprintf("text-key-%d", i), fmt.Sprintf("digest-key-%d", i)}
		keys = append(keys, own)
		clients = append(clients, guard.Client{
			Name: fmt.Sprintf("c%d", i), Keys: keysOf(own[0]), Digests: [][sha256.Size]byte{sha256.Sum256([]byte(own[1]))}, Account: accounts[i%2],
		})
	}
	return clients, keys
}

// issuedToken gets a token from the stub.
func issuedToken(t *testing.T, h http.Handler, key string) string {
	t.Helper()
	res := call(t, h, "POST", "/oauth/token", "client_id=c99&client_secret="+url.QueryEscape(key), http.Header{})
	var grant struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(res.Body.Bytes(), &grant); err != nil || grant.Token == "" {
		t.Fatalf("%d %s", res.Code, res.Body)
	}
	return grant.Token
}

func TestEachOfAHundredClientsIsIdentified(t *testing.T) {
	clients, keys := manyClients(100)
	var traced, seen string
	g, err := guard.New(guard.Policy{Clients: clients, TokenStub: true, Trace: guard.Trace{
		Client: func(_ context.Context, client, account string) { traced = client + "@" + account },
	}})
	if err != nil {
		t.Fatal(err)
	}
	h := g.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = account.ClientOf(r) + "@" + account.Of(r.Context()).Name
	}))
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		i := random.IntN(len(clients))
		key := keys[i][random.IntN(2)]
		want := fmt.Sprintf("c%d@a%d", i, i%2)
		other := fmt.Sprintf("c%d", random.IntN(len(clients)))
		header := http.Header{"X-Client": {other}, "X-Forwarded-User": {other}, "From": {other}, "User-Agent": {other}}
		switch random.IntN(4) {
		case 0:
			header.Set("X-Proxy-Key", key)
		case 1:
			header.Set("Authorization", "Bearer "+key)
		case 2:
			_, value, _ := strings.Cut(basic(other+":"+key), ": ")
			header.Set("Authorization", value)
		case 3:
			traced = ""
			token := issuedToken(t, h, key)
			if traced != want || (token == key) != strings.HasPrefix(key, "digest") {
				t.Fatalf("a token request of %s: traced %s, got %q for %q", want, traced, token, key)
			}
			header.Set("Authorization", "Bearer "+token)
		}
		traced, seen = "", ""
		call(t, h, "GET", "/x?client="+other, "", header)
		if traced != want || seen != want {
			t.Fatalf("%v is of %s: traced %s, context %s", header, want, traced, seen)
		}
	}
	for _, wrong := range []string{"c1", "text-key-100", "", "text-key-1 ", guard.StubToken(keysOf("text-key-1")[0]).Reveal()} {
		traced, seen = "", ""
		if res := call(t, h, "GET", "/", "", withKey(wrong)); res.Code != 401 || traced+seen != "" {
			t.Errorf("%q: %d, traced %q", wrong, res.Code, traced)
		}
	}
}

func TestWithoutAClientNobodyMayCall(t *testing.T) {
	for name, clients := range map[string][]guard.Client{
		"none":                   nil,
		"one without a key":      {named("a")},
		"one with an empty key":  {named("a", "")},
		"an empty text's digest": {{Name: "a", Digests: [][sha256.Size]byte{sha256.Sum256(nil)}}},
		"two of which one has neither name nor key": {{}, named("a", "k")},
	} {
		g, err := guard.New(guard.Policy{Clients: clients, TokenStub: true})
		if err != nil {
			t.Fatal(err)
		}
		h := g.Wrap(nowhereHandler{})
		for _, header := range []http.Header{{}, withKey(""), {"Authorization": {"Bearer "}}, {"Authorization": {"Basic Og=="}}, {"Authorization": {"Bearer mimecast-proxy-stub-token"}}} {
			if res := call(t, h, "GET", "/", "", header); res.Code != 401 {
				t.Errorf("%s: %v: %d", name, header, res.Code)
			}
			if res := call(t, h, "POST", "/oauth/token", "client_secret=", header); res.Code != 401 {
				t.Errorf("%s: %v: %d for a token request", name, header, res.Code)
			}
		}
		if g.AllowsTunnel(&http.Request{}) {
			t.Errorf("%s: a tunnel is allowed", name)
		}
	}
}

func TestAClientsRoutesAreWithinThoseOfAll(t *testing.T) {
	g := newGate(t, guard.Policy{Routes: []string{"GET /siem/", "GET /audit/"}, Clients: []guard.Client{
		named("free", "k-free"),
		{Name: "narrow", Keys: keysOf("k-narrow"), Routes: []string{"@siem"}},
		{Name: "wide", Keys: keysOf("k-wide"), Routes: []string{"/"}},
	}})
	const allow, clients = "PROXY_ALLOW", "client narrow in PROXY_CLIENTS_FILE"
	for _, c := range []struct {
		key, method, target string
		code                event.Code // empty means that it passes
		says                string
	}{
		{"k-free", "GET", "/siem/x", "", ""},
		{"k-free", "GET", "/audit/x", "", ""},
		{"k-free", "POST", "/siem/x", event.RouteNotAllowed, allow},
		{"k-narrow", "GET", "/siem/x", "", ""},
		{"k-narrow", "GET", "/audit/x", event.RouteNotAllowed, clients},
		{"k-narrow", "GET", "/audit%2Fx", event.BadRequestTarget, allow},
		{"k-narrow", "GET", "/x", event.RouteNotAllowed, allow},
		{"k-narrow", "POST", "/api/audit/get-siem-logs", event.RouteNotAllowed, allow}, // only in @siem
		{"k-wide", "GET", "/audit/x", "", ""},
		{"k-wide", "DELETE", "/x", event.RouteNotAllowed, allow},
	} {
		if c.code == "" {
			g.passes(c.method, c.target, "X-Proxy-Key: "+c.key)
			continue
		}
		a := g.rejects(c.code, c.method, c.target, "X-Proxy-Key: "+c.key, "Content-Length: 0")
		if !strings.Contains(a.body, c.says) || c.says != allow && strings.Contains(a.body, allow) || c.says == allow && strings.Contains(a.body, "PROXY_CLIENTS_FILE") {
			t.Errorf("%s %s %s: %s", c.key, c.method, c.target, a.body)
		}
	}
	if want := []string{"GET /siem/", "GET /audit/", "GET /siem/", "GET /audit/"}; !slices.Equal(g.routes, want) {
		t.Errorf("reported the routes %q, want %q", g.routes, want)
	}
}

func TestAClientsRoutesCountWithoutOthers(t *testing.T) {
	clients := []guard.Client{named("free", "k-free"), {Name: "narrow", Keys: keysOf("k-narrow"), Routes: []string{"GET /siem/", "GET /v1/{id}"}}}
	g := newGate(t, guard.Policy{Clients: clients})
	g.passes("DELETE", "/siem%2Fx", "X-Proxy-Key: k-free")
	g.passes("GET", "/siem/x", "X-Proxy-Key: k-narrow")
	for target, code := range map[string]event.Code{"/x": event.RouteNotAllowed, "/v1/a%2Fb": event.BadRequestTarget} {
		if a := g.rejects(code, "GET", target, "X-Proxy-Key: k-narrow"); !strings.Contains(a.body, "The allow of client narrow in PROXY_CLIENTS_FILE ") {
			t.Errorf("%s: %s", target, a.body)
		}
	}
	if a := g.rejects(event.RouteNotAllowed, "GET", "/siem/x", "X-Proxy-Key: k-narrow", "X-HTTP-Method-Override: DELETE"); !strings.Contains(a.body, "narrow") {
		t.Error(a.body)
	}
	if !slices.Equal(g.routes, []string{"GET /siem/"}) {
		t.Errorf("reported the routes %q", g.routes)
	}
	g = newGate(t, guard.Policy{Clients: clients, ReportOnly: true, Routes: []string{"GET /siem/", "/x"}})
	g.passes("GET", "/x", "X-Proxy-Key: k-narrow")
	g.passes("GET", "/y", "X-Proxy-Key: k-narrow")
	if denied := g.reported(); !slices.Equal(denied, []string{"route_not_allowed passed", "route_not_allowed passed"}) {
		t.Errorf("reported %q, want each request once", denied)
	}
}

func TestPathsThatStandForAnotherAreJudgedAsThat(t *testing.T) {
	const listing = "/siem/v1/batch/events/cg"
	g := newGate(t, guard.Policy{
		RouteAs: func(path string) string {
			if strings.HasPrefix(path, "/batch/") {
				return listing
			}
			return ""
		},
		Routes: []string{"GET /siem/", "GET /batch/", "GET /x/"},
		Clients: []guard.Client{
			named("all", "k-all"),
			{Name: "siem", Keys: keysOf("k-siem"), Routes: []string{"@siem"}},
			{Name: "exact", Keys: keysOf("k-exact"), Routes: []string{"GET " + listing}},
			{Name: "other", Keys: keysOf("k-other"), Routes: []string{"GET /batch/", "GET /x/", "POST " + listing, "GET /siem/v1/events/"}},
		},
	})
	for _, client := range []string{"all", "siem", "exact"} {
		key := "X-Proxy-Key: k-" + client
		g.passes("GET", "/batch/c2VhbGVk-_", key)
		g.rejects(event.RouteNotAllowed, "POST", "/batch/c2VhbGVk-_", key, "Content-Length: 0")
	}
	if !slices.Equal(g.routes, []string{"GET /siem/", "GET /siem/", "GET /siem/"}) {
		t.Errorf("reported the routes %q", g.routes)
	}
	for _, target := range []string{"/batch/c2VhbGVk", "/batch/c2VhbGVk?x=/siem/"} {
		g.rejects(event.RouteNotAllowed, "GET", target, "X-Proxy-Key: k-other")
	}
	g.passes("GET", "/x/batch/", "X-Proxy-Key: k-other")
	for _, target := range []string{"/batch%2Fx", "/batch;x/y", "/batch//x", "/b%61tch/x", `/batch\x`, "/batch/x%2541", "/BATCH%2fx"} {
		for _, client := range []string{"all", "siem", "exact", "other"} {
			g.rejects(event.BadRequestTarget, "GET", target, "X-Proxy-Key: k-"+client)
		}
	}
	g.rejects(event.RouteNotAllowed, "GET", "/BATCH/x", "X-Proxy-Key: k-siem")
}

// holding is a handler whose requests wait until they are released.
type holding struct {
	http.Handler
	entered chan string
	leave   chan struct{}
	all     sync.WaitGroup
}

// hold starts a request and returns once it has reached the handler.
func (s *holding) hold(t *testing.T, key string) {
	t.Helper()
	s.all.Go(func() { call(t, s.Handler, "GET", "/", "", withKey(key)) })
	<-s.entered
}

func newHolding(t *testing.T, p guard.Policy) (*guard.Guard, *holding) {
	t.Helper()
	g, err := guard.New(p)
	if err != nil {
		t.Fatal(err)
	}
	s := &holding{entered: make(chan string), leave: make(chan struct{})}
	s.Handler = g.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s.entered <- account.ClientOf(r)
		<-s.leave
	}))
	return g, s
}

// tooBusy checks that a request with a key is rejected for lack of a slot, with the reason.
func (s *holding) tooBusy(t *testing.T, key, says string) {
	t.Helper()
	res := call(t, s.Handler, "GET", "/", "", withKey(key))
	if res.Code != 503 || res.Header().Get(problem.Header) != "too_busy" || res.Header().Get("Retry-After") != "1" || !strings.Contains(res.Body.String(), says) {
		t.Errorf("%s: %d %s", key, res.Code, res.Body)
	}
}

func TestAClientPastItsLimitIsTurnedAwayAlone(t *testing.T) {
	clients := func(limit int) []guard.Client {
		return []guard.Client{{Name: "a", Keys: keysOf("k-a", "k-a2"), MaxRequests: limit}, named("b", "k-b")}
	}
	var limited atomic.Int64
	g, s := newHolding(t, guard.Policy{Clients: clients(2), Trace: guard.Trace{Limit: func(_ context.Context, setting string, owner event.Component) {
		if setting == "max_requests" && owner == event.ComponentClient {
			limited.Add(1)
		}
	}}})
	s.hold(t, "k-a")
	s.hold(t, "k-a2")
	s.tooBusy(t, "k-a", "Client a has 2 in-flight requests, its max_requests in PROXY_CLIENTS_FILE.")
	s.hold(t, "k-b")
	set := func(clients []guard.Client) {
		t.Helper()
		if err := g.SetClients(clients); err != nil {
			t.Fatal(err)
		}
	}
	set(clients(3)) // the two in-flight requests still count
	s.hold(t, "k-a")
	s.tooBusy(t, "k-a", "Client a has 3")
	set(clients(1))
	s.tooBusy(t, "k-a", "Client a has 1") // more in flight than now allowed
	set(clients(0)[1:])
	if res := call(t, s, "GET", "/", "", withKey("k-a")); res.Code != 401 {
		t.Errorf("%d for a client that is gone", res.Code)
	}
	set(clients(4))
	s.hold(t, "k-a")
	s.tooBusy(t, "k-a", "Client a has 4")
	if n := limited.Load(); n != 4 {
		t.Errorf("%d rejections were reported as of the client's limit", n)
	}
	close(s.leave)
	s.all.Wait()
	if g.InFlight() != 0 {
		t.Errorf("%d in flight", g.InFlight())
	}
	s.hold(t, "k-a")
	s.all.Wait()
}

func TestAnAccountPastItsLimitTurnsItsClientsAway(t *testing.T) {
	one, two := &account.Account{Name: "emea"}, &account.Account{Name: "us"}
	one.SetShare(2, 0)
	of := func(name string, a *account.Account) guard.Client {
		return guard.Client{Name: name, Keys: keysOf("k-" + name), Account: a, MaxRequests: 2}
	}
	clients := []guard.Client{of("a", one), of("b", one), of("c", two)}
	g, s := newHolding(t, guard.Policy{Clients: clients})
	s.hold(t, "k-a")
	s.hold(t, "k-b")
	for range 3 { // rejected requests take none of the client's slots
		s.tooBusy(t, "k-a", "Account emea has 2 in-flight requests")
	}
	s.hold(t, "k-c")
	if one.InFlight() != 2 || two.InFlight() != 1 {
		t.Errorf("%d and %d in flight", one.InFlight(), two.InFlight())
	}
	if err := g.SetClients(clients[1:]); err != nil {
		t.Fatal(err)
	}
	s.tooBusy(t, "k-b", "Account emea has 2")
	close(s.leave)
	s.all.Wait()
	if one.InFlight() != 0 || two.InFlight() != 0 {
		t.Errorf("%d and %d in flight after the end", one.InFlight(), two.InFlight())
	}
}

func TestRejectionsAreTheClients(t *testing.T) {
	var traced []string
	g, err := guard.New(guard.Policy{
		TokenStub: true,
		Clients:   []guard.Client{{Name: "a", Keys: keysOf("k"), Routes: []string{"GET /siem/"}, Account: &account.Account{Name: "emea"}}},
		Trace: guard.Trace{
			Client: func(_ context.Context, client, account string) { traced = append(traced, client+"@"+account) },
			Denied: func(_ context.Context, code event.Code, _ bool) { traced = append(traced, string(code)) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := g.Wrap(nowhereHandler{})
	for _, c := range []struct {
		method, target string
		header         http.Header
		want           []string
	}{
		{"GET", "/siem/", withKey("k"), []string{"a@emea"}},
		{"GET", "/x", withKey("k"), []string{"a@emea", "route_not_allowed"}},
		{"TRACE", "/siem/", withKey("k"), []string{"a@emea", "route_not_allowed"}},
		{"GET", "/siem/", http.Header{"X-Proxy-Key": {"k"}, "Upgrade": {"websocket"}}, []string{"a@emea", "upgrade_not_supported"}},
		{"POST", "/oauth/token", withKey("k"), []string{"a@emea"}},
		{"GET", "/siem/", withKey("x"), []string{"api_key_required"}},
		{"GET", "/siem/", http.Header{"X-Proxy-Key": {"k"}, "Origin": {"https://evil.example"}}, []string{"origin_not_allowed"}},
		{"POST", "/oauth/token", withKey("x"), []string{"api_key_required"}},
	} {
		traced = nil
		call(t, h, c.method, c.target, "", c.header)
		if !slices.Equal(traced, c.want) {
			t.Errorf("%s %s %v: %q, want %q", c.method, c.target, c.header, traced, c.want)
		}
	}
}

func TestRejectionOfAKeyNamesItsSetting(t *testing.T) {
	for _, c := range []struct {
		client guard.Client
		header http.Header
		says   string
	}{
		{guard.Client{Keys: keysOf("k")}, http.Header{}, "The request has no API key. Send the value of PROXY_API_KEY once, "},
		{guard.Client{Keys: keysOf("k")}, withKey("x"), "The API key is not valid. Send the value of PROXY_API_KEY once, "},
		{named("a", "k"), http.Header{}, "The request has no client's key. Send one from PROXY_CLIENTS_FILE, "},
		{named("a", "k"), withKey("x"), "The key is not valid. Send one from PROXY_CLIENTS_FILE, "},
	} {
		g, err := guard.New(guard.Policy{TokenStub: true, Clients: []guard.Client{c.client}})
		if err != nil {
			t.Fatal(err)
		}
		h := g.Wrap(nowhereHandler{})
		res := call(t, h, "GET", "/", "", c.header)
		if !strings.Contains(res.Body.String(), c.says) || strings.Contains(res.Body.String(), "client a") {
			t.Errorf("%s", res.Body)
		}
		setting, other := "PROXY_API_KEY", "PROXY_CLIENTS_FILE"
		if c.client.Name != "" {
			setting, other = other, setting
		}
		res = call(t, h, "POST", "/oauth/token", "client_secret=x", http.Header{})
		if res.Code != 401 || !strings.Contains(res.Body.String(), setting) || strings.Contains(res.Body.String(), other) {
			t.Errorf("%d %s", res.Code, res.Body)
		}
	}
}

func TestUnusableClientsChangeNothing(t *testing.T) {
	g := newGate(t, guard.Policy{Clients: []guard.Client{named("a", "k-a")}})
	for _, c := range []struct {
		clients []guard.Client
		says    []string
	}{
		{[]guard.Client{named("b", "k-b"), {Name: "c", Keys: keysOf("k-c"), Routes: []string{"GET /fine/", "@nothing", "siem"}}}, []string{`client "c"`, "@nothing", `"siem"`}},
		{[]guard.Client{named("b", "k-b"), named("b", "k-c")}, []string{`client "b" is there twice`}},
		{[]guard.Client{named("b", "s3cr3t"), named("c", "k-c", "s3cr3t")}, []string{`client "c": client "b" has the same key`}},
		{[]guard.Client{named("b", "s3cr3t"), {Name: "c", Digests: [][sha256.Size]byte{sha256.Sum256([]byte("s3cr3t"))}}}, []string{`client "c": client "b" has the same key`}},
		{[]guard.Client{named("b", "s3cr3t"), named("c", guard.StubToken(keysOf("s3cr3t")[0]).Reveal())}, []string{`client "c"`}},
	} {
		err := g.guard.SetClients(c.clients)
		if err == nil || slices.ContainsFunc(c.says, func(s string) bool { return !strings.Contains(err.Error(), s) }) || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "/fine/") {
			t.Errorf("%v, want %q", err, c.says)
		}
		g.passes("GET", "/", "X-Proxy-Key: k-a")
		g.rejects(event.APIKeyRequired, "GET", "/", "X-Proxy-Key: k-b")
	}
	if _, err := guard.New(guard.Policy{Clients: []guard.Client{{Name: "c", Routes: []string{"@nothing"}}}}); err == nil || !strings.Contains(err.Error(), `client "c"`) {
		t.Errorf("a guard was made: %v", err)
	}
	both := guard.StubToken(keysOf("k")[0]).Reveal()
	g.setClients([]guard.Client{named("a", "k", both)})
	g.passes("GET", "/", "X-Proxy-Key: "+both) // a stub token that is also a key
	same := guard.Client{Name: "a", Keys: keysOf("k", "k"), Digests: [][sha256.Size]byte{sha256.Sum256([]byte("k"))}}
	g.setClients([]guard.Client{same}) // a duplicate key is allowed
	g.passes("GET", "/", "X-Proxy-Key: k")
}

func TestRotationWithOverlapRejectsNothing(t *testing.T) {
	clients := func(keys ...string) []guard.Client {
		return []guard.Client{named("other", "k-other"), named("a", keys...)}
	}
	g, err := guard.New(guard.Policy{Clients: clients("k0")})
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...string) {
		if err := g.SetClients(clients(keys...)); err != nil {
			t.Error(err)
		}
	}
	h := g.Wrap(nowhereHandler{})
	var exchange sync.RWMutex // callers hold a read lock while they use the key
	key := "k0"
	var done atomic.Bool
	var wrong, passed atomic.Int64
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for !done.Load() {
				exchange.RLock()
				res := call(t, h, "GET", "/", "", withKey(key))
				exchange.RUnlock()
				if passed.Add(1); res.Code != 200 {
					wrong.Add(1)
				}
			}
		})
	}
	for i := range 50 {
		next := fmt.Sprintf("k%d", i+1)
		for before := passed.Load(); passed.Load() < before+8; { // interleaves requests and rotations
			set(key, next)
		}
		exchange.Lock()
		key = next
		exchange.Unlock()
		set(key)
	}
	done.Store(true)
	callers.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d requests were rejected", wrong.Load())
	}
	if res := call(t, h, "GET", "/", "", withKey("k49")); res.Code != 401 {
		t.Errorf("%d for a removed key", res.Code)
	}
}

// tunneled is the context key for the Authorization values that opened a request's tunnel.
type tunneled struct{}

func TestATunnelsKeyIdentifiesTheClientOfItsRequests(t *testing.T) {
	for _, password := range []bool{false, true} {
		var seen string
		p := guard.Policy{
			TokenStub: true, TunnelPassword: password,
			Clients: []guard.Client{{}, {Name: "a", Keys: keysOf("k-a"), Routes: []string{"GET /a/"}}, named("b", "k-b")},
			Tunnel: func(r *http.Request) ([]string, bool) {
				values, ok := r.Context().Value(tunneled{}).([]string)
				return values, ok
			},
		}
		g, err := guard.New(p)
		if err != nil {
			t.Fatal(err)
		}
		h := g.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = account.ClientOf(r) }))
		send := func(authorization []string, method, target string) int {
			r := httptest.NewRequestWithContext(context.WithValue(t.Context(), tunneled{}, authorization), method, target, nil)
			r.Host, r.RemoteAddr = "eu-api.mimecast.com", "192.0.2.1:1"
			r.Header = http.Header{"X-Proxy-Key": {"k-b"}, "Authorization": {"Bearer k-b"}, "Proxy-Authorization": {"Bearer k-b"}} // these must be ignored
			rec := httptest.NewRecorder()
			seen = ""
			h.ServeHTTP(rec, r)
			return rec.Code
		}
		_, basicA, _ := strings.Cut(basic("any:k-a"), ": ")
		for _, c := range []struct {
			authorization []string
			target        string
			status        int // without a forward proxy password
			client        string
		}{
			{[]string{"Bearer k-a"}, "/a/", 200, "a"},
			{[]string{basicA}, "/a/", 200, "a"},
			{[]string{"Bearer " + guard.StubToken(keysOf("k-a")[0]).Reveal()}, "/a/", 200, "a"},
			{[]string{"Bearer k-b"}, "/x", 200, "b"},
			{[]string{"Bearer k-a"}, "/x", 403, ""},
			{[]string{"Bearer x"}, "/a/", 401, ""},
			{[]string{"Bearer k-a", "Bearer k-a"}, "/a/", 401, ""},
			{[]string{}, "/a/", 401, ""},
		} {
			status, client := c.status, c.client
			if password {
				status, client = 200, "192.0.2.1" // the client without a name
			}
			if got := send(c.authorization, "GET", c.target); got != status || seen != client {
				t.Errorf("password %t, %q %s: %d of %q, want %d of %q", password, c.authorization, c.target, got, seen, status, client)
			}
		}
		if got := send([]string{"Bearer k-a"}, "POST", "/oauth/token"); got != 200 {
			t.Errorf("password %t: %d for a token request", password, got)
		}
		if err := g.SetClients(p.Clients[2:]); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"/a/", "/oauth/token"} { // both clients are gone
			if got := send([]string{"Bearer k-a"}, "POST", target); got != 401 {
				t.Errorf("password %t: %d for %s with a removed key", password, got, target)
			}
		}
	}
}

func TestEachClientsKeyOpensATunnel(t *testing.T) {
	clients, keys := manyClients(3)
	g, err := guard.New(guard.Policy{Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	for _, both := range keys {
		for _, key := range both {
			if !g.AllowsTunnel(&http.Request{Header: http.Header{"Proxy-Authorization": {"Bearer " + key}}}) {
				t.Errorf("no tunnel for %s", key)
			}
		}
	}
	for _, header := range []http.Header{nil, {"Authorization": {"Bearer " + keys[0][0]}}, {"Proxy-Authorization": {"Bearer x"}}, withKey(keys[0][0])} {
		if g.AllowsTunnel(&http.Request{Header: header}) {
			t.Errorf("a tunnel for %v", header)
		}
	}
}
