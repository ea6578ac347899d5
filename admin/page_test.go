package admin_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

// healthy returns the status of a proxy without problems.
func healthy() admin.Status {
	s := admin.Status{
		Listen: "127.0.0.1:8080", MaxRequests: 1024,
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
	o.Accounts = having(t)
	o.Demo = actions
	return o
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
	s.Denials = []event.Denial{{Reason: "route_not_allowed", Count: 9, Passed: 3, Window: 7, WindowPassed: 2, LastAt: now.Add(-time.Minute), LastMethod: "DELETE", LastPath: "/x"}}
	s.Requests[0].Retried, s.Requests[0].Fault, s.Requests[0].Component, s.Requests[0].Error = true, "upstream_reset", "mimecast", "connection reset"
	s.Errors = s.Requests[:1]
	s.Latency = event.Latency{Count: 200, OwnP50MS: .25, OwnP95MS: .5, UpstreamP50MS: 110, UpstreamP95MS: 1200}
	s.Retries = map[event.RetryOutcome]uint64{event.RetryRecovered: 3}
	s.Warnings = []string{"PROXY_ALOW is unknown; did you mean PROXY_ALLOW?"}
	s.TokenEvents = []event.TokenEvent{{Time: now, Trigger: "unauthorized", Outcome: "ok", DurationMS: 80}}
	k := goodToken()
	k.LastError, k.FailedAt, k.RetryAt, k.Failures = "the token endpoint answered 503", now.Add(-3*time.Second), now.Add(5*time.Second), 4
	body := visible(t, serve(t, showing(s, k)), "/")
	for _, want := range []string{
		"v1.2.3", "abcdef…", "global", "https://api.services.mimecast.com", "127.0.0.1:8080", // identity
		"State valid", "1 min 0 s", "in 29 min 0 s, at 2026-03-01 03:29:00 UTC", "in 5 s (4 failed so far)", "Last failed token request, 3 s ago", "The token endpoint answered 503.", // the token
		"298 of 300 calls left, resets in 1 min 30 s", "median 0.25 ms, 95 % within 0.50 ms", "median 110 ms, 95 % within 1.2 s",
		"7 requests, 2 of them passed", "3 resolved by a new token", "PROXY_ALOW is unknown; did you mean PROXY_ALLOW?",
		"retried", "Mimecast 24a37735-b64d-4ba5-bc7b-000000000000", "proxy 0000000000000000", "Mimecast closed the connection before it responded · Mimecast · upstream_reset",
		"200 of the last 200",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

// visible returns the page's texts, separated by spaces.
func visible(t *testing.T, srv *httptest.Server, path string) string {
	t.Helper()
	_, body := ask(t, srv, "GET", path)
	return strings.Join(strings.Fields(strings.Join(parse(t, body).texts, " ")), " ")
}

// attack is a text that tries to break out of a text or an attribute.
const attack = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m\x00\u2066\xff"

// sentBy returns options that show a stranger's text everywhere that it can appear.
func sentBy(stranger string) admin.Options {
	s := healthy()
	r := &s.Requests[0]
	r.Method, r.Path, r.MimecastID, r.Error, r.Fault = stranger, stranger, stranger, stranger, "other"
	s.Requests[1].Path, s.Requests[1].Error = stranger, stranger
	s.Errors = s.Requests[:1]
	s.Denials = []event.Denial{{Reason: "route_not_allowed", Count: 1, Window: 1, LastMethod: stranger, LastPath: stranger}}
	s.Faults = []event.Fault{{Code: "other", Component: "proxy", Window: 1, LastError: stranger}, {Code: "panic", Component: "proxy", Window: 1, LastError: stranger}}
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

// content is a page as a browser parses it, in document order: elements with their
// attribute names, attribute values, and texts.
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

// BenchmarkPage renders a page with the maximum content.
func BenchmarkPage(b *testing.B) {
	s := healthy()
	for i := range s.Points {
		s.Points[i] = event.Point{Requests: 20, Client: 1, Mimecast: 2, OwnMS: .3, UpstreamMS: 120}
	}
	h := admin.Handler(showing(s, goodToken()))
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		b.ReportMetric(float64(w.Body.Len()), "B/page")
	}
}

// The error texts do not repeat the summary or the remedy, and each appears once for all
// its requests.
func TestErrorsAreShownWithBothIDsAndTheirTextOnce(t *testing.T) {
	const reset, expired = "the connection was reset", "the certificate has expired"
	s := healthy()
	s.Faults = []event.Fault{{Code: event.UpstreamReset, Component: event.ComponentMimecast, Window: 40, LastAt: now, LastError: reset}, {Code: event.MimecastError, Component: event.ComponentMimecast, Window: 1, LastAt: now, LastError: event.MimecastError.Kind().Explanation()}}
	for i, text := range []string{reset, reset, expired, expired} {
		r := &s.Requests[i]
		r.Fault, r.Component, r.Error, r.Status, r.Client = event.UpstreamReset, event.ComponentMimecast, text, 502, "10.0.0.7"
	}
	s.Requests[199].Fault, s.Requests[199].Time, s.Requests[199].Error = event.UpstreamReset, now.Add(-time.Hour), "long ago"
	s.Errors = s.Requests
	page := visible(t, serve(t, showing(s, goodToken())), "/")
	errors, _, _ := strings.Cut(page[strings.Index(page, "Errors in the last 15 minutes"):], "In-flight requests")
	for text, want := range map[string]int{
		reset: 1, expired: 1, "long ago": 0, "40 requests, last just now": 1, event.MimecastError.Kind().Remedy: 1,
		"2026-03-01 03:00:00 UTC GET /siem/v1/events/0 : 502, client 10.0.0.7 proxy 0000000000000000 Mimecast 24a37735-b64d-4ba5-bc7b-000000000000": 1,
		"GET /siem/v1/events/2": 1, "GET /siem/v1/events/3": 0, // only three are shown
	} {
		if got := strings.Count(errors, text); got != want {
			t.Errorf("%q is there %d times, want %d:\n%s", text, got, want, errors)
		}
	}
}

func TestEveryCodeOnThePageHasAnEntryToLinkTo(t *testing.T) {
	s := healthy()
	for i, k := range event.Kinds() {
		s.Requests[i].Fault = k.Code
		s.Faults = append(s.Faults, event.Fault{Code: k.Code, Window: 1, LastAt: now})
	}
	s.Health.History = []event.HealthChange{{At: now, State: event.HealthDegraded, Component: event.ComponentProxy, Cause: event.CauseNearCapacity}}
	_, body := ask(t, serve(t, showing(s, goodToken())), "GET", "/")
	links := regexp.MustCompile(`href="#(code-[^"]+)"`).FindAllStringSubmatch(body, -1)
	if len(links) < len(event.Kinds()) {
		t.Errorf("only %d links", len(links))
	}
	for _, link := range links {
		if strings.Count(body, `id="`+link[1]+`"`) != 1 {
			t.Errorf("nothing is at #%s", link[1])
		}
	}
}

func TestIDsAreUnique(t *testing.T) {
	_, body := ask(t, serve(t, sentBy("x")), "GET", "/")
	seen := map[string]bool{}
	for _, id := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if seen[id[1]] {
			t.Errorf("%s is there twice", id[1])
		}
		seen[id[1]] = true
	}
}

func TestPageShowsInFlightRequestsByAge(t *testing.T) {
	s := healthy()
	s.InFlight = 2
	s.Running = []event.Running{
		{RequestID: "aaaa", AgeMS: 12000, Method: "GET", Path: "/slow", Client: "splunk", Account: "emea", Phase: event.PhaseMimecast},
		{RequestID: "bbbb", AgeMS: 300, Method: "POST", Path: "/up", Client: "10.0.0.7", BytesIn: 4096, Phase: event.PhaseClient},
	}
	page := visible(t, serve(t, showing(s, goodToken())), "/")
	for _, want := range []string{
		"In-flight requests now: 2 of 1024", "12 s waiting for Mimecast's response GET /slow splunk (account emea) 0 B aaaa",
		"300 ms waiting for the client's request body POST /up 10.0.0.7 4 KiB bbbb",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, p := range event.Phases {
		s.Running[0].Phase = p
		if strings.Contains(visible(t, serve(t, showing(s, goodToken())), "/"), "12 s "+string(p)+" GET") {
			t.Errorf("the phase %s has no words", p)
		}
	}
}

func TestPageShowsTheConfigurationWithItsOrigin(t *testing.T) {
	o := showing(healthy(), goodToken())
	o.Support = func() admin.Support {
		return admin.Support{Settings: []admin.Setting{
			{Name: "MIMECAST_CLIENT_SECRET", Value: "set, 32 characters", Origin: "file /run/secret", Changed: now.Add(-75 * time.Hour)},
			{Name: "PROXY_LISTEN", Value: "127.0.0.1:8080", Origin: "default"}, {Name: "PROXY_MAX_REQUESTS", Value: "77", Origin: "variable"},
		}}
	}
	page := visible(t, serve(t, o), "/")
	for _, want := range []string{
		"2 variables set, 1 at their default.", "MIMECAST_CLIENT_SECRET set, 32 characters file /run/secret, changed 3 d 3 h ago", "PROXY_MAX_REQUESTS 77 variable", "PROXY_LISTEN 127.0.0.1:8080 default",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in %s", want, page[strings.Index(page, "Configuration in"):])
		}
	}
}

func TestPageUsesNoWordOfOld(t *testing.T) {
	body := visible(t, serve(t, sentBy("x")), "/")
	if found := regexp.MustCompile(`(?i)\b(tool|answer|verdict|culprit|sent again|went wrong)\b`).FindAllString(body, -1); len(found) > 0 {
		t.Errorf("the page says %q", found)
	}
}

func TestPlotHasItsValuesInWords(t *testing.T) {
	s := healthy()
	for i := range s.Points {
		s.Points[i].T = now.Unix() - 900 + int64(i)*5
	}
	s.Points[7] = event.Point{T: s.Points[7].T, Requests: 4, Client: 1, Mimecast: 2, OwnMS: .3, UpstreamMS: 120}
	page := visible(t, serve(t, showing(s, goodToken())), "/")
	if want := "2026-03-01 02:45:35 UTC : 4 requests, 1 failed (client), 2 failed (Mimecast), proxy 0.30 ms, Mimecast 120 ms"; !strings.Contains(page, want) {
		t.Errorf("no %q", want)
	}
}
