package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// healthy is the status of a proxy that nothing is wrong with.
func healthy() admin.Status {
	s := admin.Status{
		Listen: "127.0.0.1:8080", MaxRequests: 1024,
		Account: admin.Account{ClientID: "abcdefghijkl", Region: "global", BaseURL: "https://api.services.mimecast.com"},
		Snapshot: event.Snapshot{
			Now: now, Started: now.Add(-2 * time.Hour), Version: "v1.2.3",
			LastMinute: 100, Total: 5000, WindowSeconds: 900, StepSeconds: 5,
		},
	}
	s.Points = make([]event.Point, 180)
	s.Points[179].Requests = 100
	for i := range 200 {
		s.Requests = append(s.Requests, event.Request{
			Seq: uint64(5000 - i), Time: now.Add(-time.Duration(i) * time.Second), Method: "GET", Path: fmt.Sprintf("/siem/v1/events/%d", i), Status: 200,
			DurationMS: 120, OwnMS: .2, UpstreamMS: 110, RequestID: fmt.Sprintf("%016x", i), MimecastID: fmt.Sprintf("24a37735-b64d-4ba5-bc7b-%012x", i),
		})
	}
	return s
}

func goodToken() admin.TokenState {
	return admin.TokenState{Held: true, Valid: true, EverHeld: true, FetchedAt: now.Add(-time.Minute), Expiry: now.Add(29 * time.Minute), NextRenewal: now.Add(24 * time.Minute)}
}

// showing returns options that show a status.
func showing(s admin.Status, t admin.TokenState, actions ...admin.Action) admin.Options {
	o := full()
	o.Status = func() admin.Status { return s }
	o.Token = func() admin.TokenState { return t }
	o.Demo = actions
	return o
}

func TestVerdictNamesTheOneToLookAt(t *testing.T) {
	fault := func(code event.Code, component event.Component, n uint32) event.Fault {
		return event.Fault{Code: code, Component: component, LastMinute: n, Window: n, LastAt: now}
	}
	number := func(n float64) *float64 { return &n }
	for _, c := range []struct {
		name         string
		change       func(*admin.Status, *admin.TokenState)
		state        string
		component    event.Component
		text, advice string // parts of them
	}{
		{"all well", func(*admin.Status, *admin.TokenState) {}, "ok", "", "All is well: 100 requests in the last minute.", ""},
		{"idle", func(s *admin.Status, _ *admin.TokenState) { s.LastMinute = 0 }, "ok", "", "nobody asked", ""},
		{"a few went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 4)}
		}, "ok", "", "of which 4 went wrong", ""},
		{"some went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 6)}
		}, "watch", "mimecast", "Mimecast responded with a server error (5xx): 6 of 100 requests in the last minute.", "service status"},
		{"many went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("upstream_tls", "mimecast", 60)}
		}, "bad", "mimecast", "No trusted TLS connection", "MIMECAST_CA_FILE"},
		{"the tool and Mimecast", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("route_not_allowed", "tool", 70), fault("upstream_timeout", "mimecast", 6)}
		}, "watch", "mimecast", "did not respond in time", "PROXY_RESPONSE_TIMEOUT"},
		{"the tool", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("route_not_allowed", "tool", 70)}
		}, "bad", "tool", "The route is not allowed: 70 of 100 requests", "PROXY_ALLOW"},
		{"a flood of rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 90, Window: 90, LastAt: now}}
		}, "ok", "", "All is well: 10 requests in the last minute. The proxy rejected 90 more.", ""},
		{"a flood beside what goes wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 10000
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 9990, Window: 9990, LastAt: now}, fault("mimecast_error", "mimecast", 9)}
		}, "bad", "mimecast", "server error (5xx): 9 of 10 requests", "service status"},
		{"nothing but rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{{Code: "route_not_allowed", Component: "tool", Rejected: true, LastMinute: 100, Window: 100, LastAt: now}}
		}, "watch", "tool", "The route is not allowed: all 100 requests in the last minute were rejected.", "PROXY_ALLOW"},
		{"nothing but rejected requests, a while ago", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 0
			s.Faults = []event.Fault{{Code: "host_not_allowed", Component: "tool", Rejected: true, Window: 100, LastAt: now}}
		}, "watch", "tool", "all 100 requests in the last 15 minutes", "PROXY_ALLOWED_HOSTS"},
		{"the commonest fault is named", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 8), fault("upstream_unreachable", "mimecast", 30)}
		}, "bad", "mimecast", "cannot be reached: 38 of 100", "DNS"},
		{"wrong secret", func(_ *admin.Status, k *admin.TokenState) {
			*k = admin.TokenState{LastError: "mimecast refused", Refused: true}
		}, "bad", "token", "rejects the client ID or the secret", "MIMECAST_CLIENT_SECRET"},
		{"no token", func(_ *admin.Status, k *admin.TokenState) {
			*k = admin.TokenState{LastError: "the endpoint answered 503"}
		}, "bad", "token", "There is no token", "The endpoint answered 503."},
		{"first token", func(_ *admin.Status, k *admin.TokenState) { *k = admin.TokenState{} }, "watch", "token", "first token", ""},
		{"expired", func(_ *admin.Status, k *admin.TokenState) { k.Valid = false }, "watch", "token", "a new token", ""},
		{"revoked, and no other", func(_ *admin.Status, k *admin.TokenState) { k.Rejected, k.LastError = true, "down" }, "bad", "token", "Mimecast rejects the token", "Down."},
		{"not renewed", func(_ *admin.Status, k *admin.TokenState) { k.LastError = "down" }, "watch", "token", "expires in 29 min 0 s", "Down."},
		{"rate limit", func(s *admin.Status, _ *admin.TokenState) {
			s.RateLimit = &event.RateLimit{Limit: number(300), Remaining: number(20), SeenAt: now.Add(-time.Minute)}
		}, "watch", "mimecast", "20 of 300 left", "PROXY_RATE_LIMIT_WAIT"},
		{"rate limit that was reset", func(s *admin.Status, _ *admin.TokenState) {
			s.RateLimit = &event.RateLimit{Limit: number(300), Remaining: number(20), ResetMS: number(5000), SeenAt: now.Add(-time.Minute)}
		}, "ok", "", "All is well", ""},
		{"hanging", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince, s.Requests = 3, now.Add(-time.Minute), s.Requests[15:]
		}, "watch", "mimecast", "3 requests in flight, and none has ended for 15 s", "slow"},
		{"hanging, amid rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince = 3, now.Add(-time.Minute)
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 15, Window: 15, LastAt: now}}
			for i := range 15 {
				s.Requests[i].Fault = "api_key_required"
			}
		}, "watch", "mimecast", "3 requests in flight, and none has ended for 15 s", "slow"},
		{"just begun", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince, s.Requests = 3, now.Add(-time.Second), nil
		}, "ok", "", "All is well", ""},
		{"full", func(s *admin.Status, _ *admin.TokenState) { s.InFlight = 1000 }, "watch", "proxy", "1000 in flight of 1024", "PROXY_MAX_REQUESTS"},
		{"slow Mimecast", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests {
				s.Requests[i].UpstreamMS = 6000
			}
		}, "watch", "mimecast", "slow: it takes 6.0 s", ""},
		{"slow long ago", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests[60:] {
				s.Requests[60+i].UpstreamMS = 6000
			}
		}, "ok", "", "All is well", ""},
		{"slow proxy", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests {
				s.Requests[i].OwnMS = 500
			}
		}, "watch", "proxy", "slow: it adds 500 ms", "CPU"},
		{"went wrong a while ago", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 0
			s.Faults = []event.Fault{{Code: "mimecast_error", Component: "mimecast", Window: 50, LastAt: now.Add(-10 * time.Minute)}}
		}, "watch", "mimecast", "50 of 100 requests in the last 15 minutes", "service status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, k := healthy(), goodToken()
			c.change(&s, &k)
			_, body := ask(t, serve(t, showing(s, k)), "GET", "/api/status")
			var got struct{ Verdict admin.Verdict }
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			v := got.Verdict
			if v.State != c.state || v.Component != c.component || !strings.Contains(v.Text, c.text) || !strings.Contains(v.Advice, c.advice) || c.advice == "" && c.state == "bad" {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestDrainIsTheVerdictWhateverElseIsWrong(t *testing.T) {
	s := healthy()
	s.InFlight = 2
	o := showing(s, admin.TokenState{LastError: "down"})
	o.Draining = func() bool { return true }
	if _, body := ask(t, serve(t, o), "GET", "/"); !strings.Contains(body, "shutting down: 2 requests still in flight") {
		t.Error("the page does not say so")
	}
}

func TestPageUsesOnlyWhatIsServedBesideIt(t *testing.T) {
	srv := serve(t, showing(healthy(), goodToken()))
	res, body := ask(t, srv, "GET", "/")
	policy := res.Header.Get("Content-Security-Policy")
	if res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if inline := regexp.MustCompile(`(?i)<style|<script>| style=| on[a-z]+=|javascript:|https?://(api\.services\.mimecast\.com)?["' ]`).FindString(body); inline != "" {
		t.Errorf("inline or from outside: %q", inline)
	}
	linked := regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(linked) != 3 {
		t.Errorf("%d assets: %v", len(linked), linked)
	}
	for _, path := range linked {
		if res, body := ask(t, srv, "GET", path[1]); res.StatusCode != 200 || body == "" || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path[1], res.StatusCode, res.Header)
		}
	}
}

func TestPageShowsWhatTheStatusHolds(t *testing.T) {
	s := healthy()
	limit, left, reset := 300.0, 298.0, 90000.0
	s.RateLimit = &event.RateLimit{Limit: &limit, Remaining: &left, ResetMS: &reset, SeenAt: now}
	s.Denials = []event.Denial{{Reason: "route_not_allowed", Count: 7, Passed: 2, LastAt: now.Add(-time.Minute), LastMethod: "DELETE", LastPath: "/x"}}
	s.Requests[0].Retried, s.Requests[0].Fault, s.Requests[0].Component, s.Requests[0].Error = true, "upstream_reset", "mimecast", "connection reset"
	s.Latency = event.Latency{Count: 200, OwnP50MS: .25, OwnP95MS: .5, UpstreamP50MS: 110, UpstreamP95MS: 1200}
	s.Retries = map[event.RetryOutcome]uint64{event.RetryRecovered: 3}
	s.Warnings = []string{"PROXY_ALOW is unknown; did you mean PROXY_ALLOW?"}
	s.TokenEvents = []event.TokenEvent{{Time: now, Trigger: "unauthorized", Outcome: "ok", DurationMS: 80}}
	k := goodToken()
	k.LastError, k.FailedAt, k.RetryAt, k.Failures = "the token endpoint answered 503", now.Add(-3*time.Second), now.Add(5*time.Second), 4
	_, body := ask(t, serve(t, showing(s, k)), "GET", "/")
	for _, want := range []string{
		"v1.2.3", "abcdef…", "global", "https://api.services.mimecast.com", "127.0.0.1:8080", // who
		"held and valid", "1 min 0 s", "in 29 min 0 s, at 03:29:00", "in 5 s (4 failed so far)", "Last failure, 3 s ago", "The token endpoint answered 503.", // the token
		"298 of 300 calls left, all of them in 1 min 30 s", "half within 0.25 ms, 95 % within 0.50 ms", "half within 110 ms, 95 % within 1.2 s",
		"7 since the start, of which 2 passed", "DELETE /x", "3</b> resolved by a new token", "PROXY_ALOW is unknown; did you mean PROXY_ALLOW?</p>",
		">retried<", "24a37735-b64d-4ba5-bc7b-000000000000", "Mimecast closed the connection before it responded (connection reset)",
		`role="img" aria-label="Bars: requests in the last 15 minutes. 100 went well`, `200 of 200`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

func TestFilterWorksWithoutScripts(t *testing.T) {
	s := healthy()
	s.Requests[3].Retried = true
	s.Requests[4].Fault, s.Requests[4].Status, s.Requests[4].DurationMS = "mimecast_error", 502, 1500
	srv := serve(t, showing(s, goodToken()))
	for query, want := range map[string]int{
		"": 200, "?q=events/7": 11, "?q=GET+events/42": 1, "?q=000000000063": 1, "?q=502": 1, "?show=retried": 1, "?show=wrong": 1, "?show=slow": 1,
		"?show=retried&q=502": 0, "?show=other": 200, "?q=%22%3E%3Cb%3E": 0,
	} {
		_, body := ask(t, srv, "GET", "/"+query)
		if n := strings.Count(body, `<tr role="row" class=`); n != want {
			t.Errorf("%q: %d rows, want %d", query, n, want)
		}
		if strings.Contains(query, "%3C") && !strings.Contains(body, `value="&#34;&gt;&lt;b&gt;"`) {
			t.Errorf("%q: what was searched for is markup", query)
		}
	}
}

// attack is what a stranger may send to break out of a text or of an attribute.
const attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\x00\u2066\xff"

// sentBy returns options that show a stranger's text wherever one can get to.
func sentBy(stranger string) admin.Options {
	s := healthy()
	r := &s.Requests[0]
	r.Method, r.Path, r.MimecastID, r.Error, r.Fault = stranger, stranger, stranger, stranger, "other"
	s.Requests[1].Path, s.Requests[1].Error = stranger, stranger
	s.Denials = []event.Denial{{Reason: "route_not_allowed", Count: 1, LastMethod: stranger, LastPath: stranger}}
	s.Faults = []event.Fault{{Code: "other", Component: "proxy", LastError: stranger}}
	k := goodToken()
	k.LastError = stranger
	return showing(s, k)
}

func TestStrangersTextIsHarmless(t *testing.T) {
	_, body := ask(t, serve(t, sentBy(attack)), "GET", "/")
	for _, bad := range []string{"<script>a", "<img", "\u202e", "\u2066", "\x1b", "\x00", "\xff"} {
		if i := strings.Index(body, bad); i >= 0 {
			t.Errorf("%q is on the page: …%q", bad, body[max(0, i-80):i])
		}
	}
	if !strings.Contains(body, `\u202egnp.exe\x1b[31m`) {
		t.Error("what does not print is not shown by its code")
	}
}

// content is a page as a browser takes it, each in its order: the elements with
// the names of their attributes, the values of those, and the texts.
type content struct{ elements, values, texts []string }

func parse(t *testing.T, page string) (c content) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			c.texts = append(c.texts, n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		element := n.Data
		for _, a := range n.Attr {
			element += " " + a.Key
			c.values = append(c.values, a.Val)
		}
		c.elements = append(c.elements, element)
	}
	return c
}

func TestStrangersTextBreaksOutOfNeitherTextNorAttribute(t *testing.T) {
	const (
		tame     = "~tame~"
		shown    = `"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\x00\u2066\xff`
		searched = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\uFFFD\u2066\uFFFD"
	)
	page := func(text string) string {
		_, body := ask(t, serve(t, sentBy(text)), "GET", "/?q="+url.QueryEscape(text))
		return body
	}
	body := page(attack)
	if !utf8.ValidString(body) || strings.Contains(body, "\x00") {
		t.Error("the page is no UTF-8 text")
	}
	if n := strings.Count(body, `<tr role="row" class=`); n != 2 {
		t.Errorf("%d requests are found", n)
	}
	got, want := parse(t, body), parse(t, page(tame))
	same := func(what string, got, want []string, becomes string) {
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], tame, becomes)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s are %q, want %q", what, got, want)
		}
	}
	same("elements", got.elements, want.elements, tame)
	same("values", got.values, want.values, searched)
	same("texts", got.texts, want.texts, shown)
}

func TestButtonsDoAndUndo(t *testing.T) {
	var on atomic.Bool
	set := func(v bool) func(context.Context) error {
		return func(context.Context) error { on.Store(v); return nil }
	}
	srv := serve(t, showing(healthy(), goodToken(),
		admin.Action{Name: "slow", Label: "Slow down", Do: set(true), UndoLabel: "Speed up", Undo: set(false), Active: on.Load},
		admin.Action{Name: "fail", Label: "Fail", Do: func(context.Context) error { return errors.New("no such luck") }}))
	for _, c := range []struct {
		path   string
		active bool
		label  string
	}{{"/demo/slow", true, "Speed up"}, {"/demo/slow/undo", false, "Slow down"}} {
		if res, _ := ask(t, srv, "POST", c.path, "Accept", "text/html", "Sec-Fetch-Site", "same-origin"); res.StatusCode != 303 || res.Header.Get("Location") != "/" {
			t.Errorf("%s: %d %v", c.path, res.StatusCode, res.Header)
		}
		if _, body := ask(t, srv, "GET", "/"); on.Load() != c.active || !strings.Contains(body, ">"+c.label+"<") {
			t.Errorf("%s: on %v, or no button %q", c.path, on.Load(), c.label)
		}
	}
	if res, body := ask(t, srv, "POST", "/demo/fail"); res.StatusCode != 502 || !strings.Contains(body, "no such luck") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestForeignPageCannotPushAButton(t *testing.T) {
	action := admin.Action{Name: "revoke", Do: func(context.Context) error { t.Error("pushed"); return nil }}
	srv := serve(t, showing(healthy(), goodToken(), action))
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		if res, _ := ask(t, srv, "POST", "/demo/revoke", header...); res.StatusCode != 403 {
			t.Errorf("%v: %d", header, res.StatusCode)
		}
	}
	if res, _ := ask(t, srv, "GET", "/demo/revoke"); res.StatusCode != 405 {
		t.Errorf("GET: %d", res.StatusCode)
	}
	o := showing(healthy(), goodToken(), action)
	o.Local = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	}
	srv = serve(t, o)
	for _, target := range []string{"GET /", "POST /demo/revoke"} {
		method, path, _ := strings.Cut(target, " ")
		if res, _ := ask(t, srv, method, path); res.StatusCode != 403 {
			t.Errorf("%s from elsewhere: %d", target, res.StatusCode)
		}
	}
}

func TestOnlyDemosHaveButtons(t *testing.T) {
	srv := serve(t, showing(healthy(), goodToken()))
	if _, body := ask(t, srv, "GET", "/"); strings.Contains(body, `method="post"`) || strings.Contains(body, "demo") {
		t.Error("the page of a proxy has a button")
	}
	if res, _ := ask(t, srv, "POST", "/demo/revoke"); res.StatusCode != 404 {
		t.Errorf("%d", res.StatusCode)
	}
}

// BenchmarkPage renders the page with all that it can hold.
func BenchmarkPage(b *testing.B) {
	s := healthy()
	for i := range s.Points {
		s.Points[i] = event.Point{Requests: 20, Tool: 1, Mimecast: 2, OwnMS: .3, UpstreamMS: 120}
	}
	h := admin.Handler(showing(s, goodToken()))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		b.ReportMetric(float64(w.Body.Len()), "B/page")
	}
}
