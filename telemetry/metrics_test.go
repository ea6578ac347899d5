package telemetry_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

// busy returns a telemetry to which everything has happened once.
func busy(t *testing.T) *telemetry.Telemetry {
	r := newRig(t, telemetry.Options{Version: "v1", Revision: "abc", Routes: []string{"GET /siem/"}}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			ctx := req.Context()
			tel.Route(ctx, "GET /siem/")
			tel.Answered(ctx, 200, http.Header{"X-Rate-Limit-Limit": {"50"}, "X-Rate-Limit-Remaining": {"49"}}, time.Second)
			tel.Unauthorized(ctx, "token_expired")
			tel.Retried(ctx, "recovered")
			tel.RateLimitWait(ctx, "recovered")
			tel.Denied(ctx, "host_not_allowed", true)
			tel.ReplayBytes(7)
		}
	})
	r.TokenStart("startup")
	r.Clock(-90 * time.Second)
	r.TokenDone("startup", "ok", time.Second, time.Now().Add(time.Hour), nil)
	if _, err := r.get("/siem/x"); err != nil {
		t.Fatal(err)
	}
	r.end()
	return r.Telemetry
}

func TestMetricsOfTheContractExist(t *testing.T) {
	text := scrape(t, busy(t))
	hasSeries(t, text,
		`requests_total{code="200",method="GET"} 1`,
		"request_duration_seconds_count 1",
		"requests_in_flight 0",
		`requests_denied_total{reason="host_not_allowed"} 1`,
		`requests_denied_total{reason="too_busy"} 0`,
		`unauthorized_total{reason="token_expired"} 1`,
		`unauthorized_total{reason="token_verification_failed"} 0`,
		`unauthorized_retries_total{outcome="recovered"} 1`,
		`unauthorized_retries_total{outcome="token_fresh"} 0`,
		`token_requests_total{outcome="ok",trigger="startup"} 1`,
		"token_request_duration_seconds_count 1",
		"token_valid 1",
		"rate_limit_limit 50",
		"clock_skew_seconds -90",
		"rate_limit_remaining 49",
		`rate_limit_waits_total{outcome="recovered"} 1`,
		"replay_buffer_bytes 7",
		`route_requests_total{code="200",route="GET /siem/"} 1`,
		"upstream_duration_seconds_count 1",
	)
	for _, part := range []string{"\nmimecast_proxy_build_info{goversion=\"go", `revision="abc",version="v1"} 1`, "\ngo_goroutines ", "\nprocess_cpu_seconds_total ",
		"\nmimecast_proxy_token_expiry_timestamp_seconds 1", "\nmimecast_proxy_request_duration_seconds_bucket{le=\"0.005\"} "} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q", part)
		}
	}
}

func TestHistogramsAreClassicAndNative(t *testing.T) {
	s := httptest.NewServer(busy(t).Metrics())
	defer s.Close()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Client().CloseIdleConnections()
	defer res.Body.Close()
	seen := 0
	for decode := expfmt.NewDecoder(res.Body, expfmt.ResponseFormat(res.Header)); ; {
		var family dto.MetricFamily
		if err := decode.Decode(&family); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		if h := family.GetMetric()[0].GetHistogram(); h != nil && strings.HasPrefix(family.GetName(), "mimecast_proxy_") {
			seen++
			if len(h.GetBucket()) != 16 || h.Schema == nil || len(h.GetPositiveSpan()) == 0 {
				t.Errorf("%s: %d buckets, schema %v, %d spans", family.GetName(), len(h.GetBucket()), h.Schema, len(h.GetPositiveSpan()))
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d histograms", seen)
	}
}

func TestEveryTokenCounterIsThereFromTheStart(t *testing.T) {
	text := scrape(t, newTelemetry(t, telemetry.Options{MaxRequests: 7, ReplayMemory: 9}))
	hasSeries(t, text, `token_requests_total{outcome="refused",trigger="expiry"} 0`, `token_requests_total{outcome="ok",trigger="startup"} 0`,
		"requests_in_flight_limit 7", "replay_buffer_limit_bytes 9")
	if n := strings.Count(text, "\nmimecast_proxy_token_requests_total{"); n != 12 {
		t.Errorf("%d series", n)
	}
}

func TestMetricsPassTheLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, busy(t)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestLabelsComeFromClosedSets(t *testing.T) {
	r := newRig(t, telemetry.Options{Routes: []string{"GET /a"}}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, req *http.Request) {
			tel.Route(req.Context(), "odd")
			tel.Unauthorized(req.Context(), event.UnauthorizedReasonOf("odd"))
		}
	})
	if _, err := r.do("ODD", "/odd", nil); err != nil {
		t.Fatal(err)
	}
	r.end()
	text := scrape(t, r.Telemetry)
	if strings.Contains(strings.ToLower(text), `"odd"`) {
		t.Error(ours(text))
	}
	hasSeries(t, text, `requests_total{code="200",method="other"} 1`, `unauthorized_total{reason="other"} 1`, `route_requests_total{code="200",route="other"} 1`)
}

func TestRateLimitIsReadInAllSpellings(t *testing.T) {
	for _, prefix := range []string{"X-RateLimit-", "X-Rate-Limit-", "X-Mimecast-RateLimit-"} {
		tel := newTelemetry(t, telemetry.Options{})
		if text := scrape(t, tel); strings.Contains(text, "mimecast_proxy_rate_limit_limit") {
			t.Error("a limit before Mimecast named one")
		}
		h := http.Header{}
		h.Set(prefix+"Limit", "300")
		h.Set(prefix+"Remaining", "0")
		h.Set(prefix+"Reset", "1750")
		tel.Answered(t.Context(), 200, h, 0)
		hasSeries(t, scrape(t, tel), "rate_limit_limit 300", "rate_limit_remaining 0", "rate_limit_reset_seconds 1.75")
		if l := tel.Snapshot().RateLimit; l == nil || *l.ResetMS != 1750 {
			t.Errorf("%s: %+v", prefix, l)
		}
	}
}

func TestHostileRateLimitsAreIgnored(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	for _, values := range [][]string{{"-1"}, {"1e9"}, {"NaN"}, {"+Inf"}, {"9999999999999999"}, {"1", "2"}, {""}, {" 1"}, {"0x1"}} {
		tel.Answered(t.Context(), 200, http.Header{"X-Ratelimit-Limit": values, "X-Ratelimit-Remaining": values}, 0)
	}
	if text := scrape(t, tel); strings.Contains(text, "mimecast_proxy_rate_limit_limit") || tel.Snapshot().RateLimit != nil {
		t.Error(ours(text))
	}
}

func TestTokenIsValidUntilItExpires(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	hasSeries(t, scrape(t, tel), "token_valid 0", "token_expiry_timestamp_seconds 0")
	tel.TokenDone("startup", "ok", 0, time.Now().Add(time.Hour), nil)
	tel.TokenDone("expiry", "unavailable", 0, time.Time{}, errors.New("x"))
	hasSeries(t, scrape(t, tel), "token_valid 1")
	tel.TokenDone("unauthorized", "ok", 0, time.Now().Add(-time.Second), nil)
	hasSeries(t, scrape(t, tel), "token_valid 0")
}

func TestTokenEventIsOneLine(t *testing.T) {
	log := &buffer{}
	tel := newTelemetry(t, telemetry.Options{Output: log})
	tel.TokenStart("startup")
	tel.TokenDone("startup", "refused", 1500*time.Microsecond, time.Time{}, errors.New("check the secret"))
	tel.TokenDone("startup", "unavailable", 0, time.Time{}, errors.New("down"))
	tel.TokenDone("startup", "ok", 0, time.Unix(1e9, 0), nil)
	lines := slices.Collect(strings.Lines(log.String()))
	for i, want := range []string{
		`"level":"error","time":"*","msg":"token refused","trigger":"startup","outcome":"refused","duration_ms":1.5,"error":"check the secret"`,
		`"level":"warn","time":"*","msg":"no token","trigger":"startup","outcome":"unavailable","duration_ms":0,"error":"down"`,
		`"level":"info","time":"*","msg":"token renewed","trigger":"startup","outcome":"ok","duration_ms":0,"expiry":"2001-09-09T01:46:40.000Z"`,
	} {
		before, after, _ := strings.Cut(want, "*")
		if i >= len(lines) || !strings.Contains(lines[i], before) || !strings.Contains(lines[i], after) {
			t.Errorf("%d: %q", i, lines)
		}
	}
	if len(lines) != 3 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestSnapshotShowsTheWindowAndForgetsBeyond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{})
		h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Millisecond)
			tel.Answered(r.Context(), 200, http.Header{}, 2*time.Millisecond)
			if r.URL.Path == "/bad" {
				w.WriteHeader(500)
			}
		}))
		ask := func(path string) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(discard{}, r)
		}
		ask("/ok")
		ask("/bad")
		time.Sleep(5 * time.Minute)
		ask("/ok")
		snap := tel.Snapshot()
		first, last := find(snap.Points)
		if snap.Total != 3 || first.Requests != 2 || first.Mimecast != 1 || first.UpstreamMS != 2 || first.OwnMS != 1 || last.Requests != 1 || snap.LastMinute != 1 {
			t.Errorf("%+v, first %+v, last %+v", snap, first, last)
		}
		if len(snap.Points) != 180 || snap.Points[179].T-snap.Points[0].T != 179*5 || snap.Points[179].Requests != 1 {
			t.Errorf("%d points", len(snap.Points))
		}
		if f := snap.Faults; len(f) != 1 || f[0].Code != "mimecast_error" || f[0].Window != 1 || f[0].LastMinute != 0 {
			t.Errorf("%+v", f)
		}
		if l := snap.Latency; l != (event.Latency{Count: 3, OwnP50MS: 1, OwnP95MS: 1, UpstreamP50MS: 2, UpstreamP95MS: 2}) {
			t.Errorf("%+v", l)
		}
		time.Sleep(12 * time.Minute)
		if snap := tel.Snapshot(); len(snap.Faults) != 0 || len(snap.Requests) != 3 || sum(snap.Points) != 1 {
			t.Errorf("%+v", snap)
		}
		time.Sleep(24 * time.Hour)
		if snap := tel.Snapshot(); sum(snap.Points) != 0 {
			t.Errorf("%+v", snap.Points)
		}
	})
}

// discard is a ResponseWriter for where there is no network.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// find returns the first and the last point with requests in it.
func find(points []event.Point) (first, last event.Point) {
	for _, p := range points {
		if p.Requests > 0 && first.Requests == 0 {
			first = p
		}
		if p.Requests > 0 {
			last = p
		}
	}
	return first, last
}

func sum(points []event.Point) (n uint32) {
	for _, p := range points {
		n += p.Requests
	}
	return n
}

func TestFaultsNameTheComponent(t *testing.T) {
	for _, c := range []struct {
		fault     event.Code
		component event.Component
		do        func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request)
	}{
		{"", "", func(tel *telemetry.Telemetry, _ http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", true)
		}},
		{"route_not_allowed", event.ComponentTool, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", false)
			w.WriteHeader(403)
		}},
		{"credentials_refused", event.ComponentToken, fails("credentials_refused", 502)},
		{"token_unavailable", event.ComponentToken, fails("token_unavailable", 503)},
		{"upstream_timeout", event.ComponentMimecast, fails("upstream_timeout", 504)},
		{"too_busy", event.ComponentProxy, fails("too_busy", 503)},
		{"client_gone", event.ComponentTool, fails("client_gone", 499)},
		{"other", event.ComponentProxy, func(_ *telemetry.Telemetry, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"request_refused", event.ComponentTool, func(_ *telemetry.Telemetry, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }},
		{"mimecast_unauthorized", event.ComponentToken, answers(401)},
		{"mimecast_forbidden", event.ComponentMimecast, answers(403)},
		{"mimecast_rate_limited", event.ComponentMimecast, answers(429)},
		{"mimecast_error", event.ComponentMimecast, answers(503)},
		{"request_refused", event.ComponentTool, answers(404)},
		{"", "", answers(302)},
		{"mimecast_truncated", event.ComponentMimecast, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			answers(200)(tel, w, r)
			panic(http.ErrAbortHandler)
		}},
		{"panic", event.ComponentProxy, func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) { panic("x") }},
	} {
		r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { c.do(tel, w, r) }
		})
		r.get("/")
		r.end()
		snap := r.Snapshot()
		if got := snap.Requests[0]; got.Fault != c.fault || got.Component != c.component {
			t.Errorf("%q of %q, want %q of %q", got.Fault, got.Component, c.fault, c.component)
		}
		if text := snap.Requests[0].Error; strings.HasPrefix(string(c.fault), "mimecast_") && !strings.HasPrefix(text, string(c.fault)+": ") {
			t.Errorf("%s: no word of what to do: %q", c.fault, text)
		}
		if (len(snap.Faults) == 1) != (c.fault != "") {
			t.Errorf("%q: %+v", c.fault, snap.Faults)
		}
	}
}

func fails(code event.Code, status int) func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) {
	return func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
		tel.Failed(r.Context(), problem.New(code, "why"))
		w.WriteHeader(status)
	}
}

func answers(status int) func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) {
	return func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
		tel.Answered(r.Context(), status, http.Header{}, time.Millisecond)
		w.WriteHeader(status)
	}
}

func TestSlowUploadIsNotTheProxysTime(t *testing.T) {
	reading := make(chan bool)
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			close(reading)
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			tel.Answered(r.Context(), 200, http.Header{}, time.Microsecond)
		}
	})
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\n")
	<-reading
	<-time.After(200 * time.Millisecond) // this client is slow
	fmt.Fprint(conn, "x")
	io.Copy(io.Discard, conn)
	r.end()
	if got := r.Snapshot().Requests[0]; got.DurationMS < 190 || got.OwnMS > got.DurationMS-100 {
		t.Errorf("%+v", got)
	}
}

func TestHoldingBackIsNotTheProxysTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, telemetry.Options{})
		h := tel.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Millisecond)
			tel.Answered(r.Context(), 429, http.Header{}, 2*time.Millisecond)
			time.Sleep(time.Minute + 2*time.Millisecond)
			tel.Answered(r.Context(), 200, http.Header{}, 2*time.Millisecond)
		}))
		r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		h.ServeHTTP(discard{}, r)
		if got := tel.Snapshot().Requests[0]; got.OwnMS != 1 || got.UpstreamMS != 4 || !got.Retried {
			t.Errorf("%+v", got)
		}
	})
}

func TestDenialsAreRemembered(t *testing.T) {
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", r.URL.Path == "/passed")
		}
	})
	for _, path := range []string{"/passed", "/denied", "/last?secret"} {
		if _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	d := r.Snapshot().Denials
	if len(d) != 1 || d[0].Count != 3 || d[0].Passed != 1 || d[0].LastPath != "/last" || d[0].LastMethod != "GET" {
		t.Errorf("%+v", d)
	}
}

func TestTokenEventsAreRememberedNewestFirst(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.TokenDone("startup", "refused", 0, time.Time{}, errors.New("why"))
	for range 30 {
		tel.TokenStart("expiry")
		if !tel.Snapshot().Renewing {
			t.Error("not renewing")
		}
		tel.TokenDone("expiry", "ok", 0, time.Now().Add(time.Hour), nil)
	}
	snap := tel.Snapshot()
	if len(snap.TokenEvents) != 20 || snap.TokenEvents[0].Outcome != "ok" || snap.TokenFailure.Error != "why" || snap.Renewing {
		t.Errorf("%+v", snap)
	}
}

func TestStatusesThatHTTPDoesNotKnowAreOneSeries(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{Routes: []string{"GET /"}})
	status := 0
	h := tel.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tel.Route(r.Context(), "GET /")
		tel.Answered(r.Context(), status, http.Header{}, 0)
		w.WriteHeader(status)
	}))
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{}
	for status = 200; status <= 999; status++ {
		h.ServeHTTP(discard{}, r)
		if http.StatusText(status) != "" || status == 499 {
			want = append(want, fmt.Sprintf(`requests_total{code="%d",method="GET"} 1`, status), fmt.Sprintf(`route_requests_total{code="%d",route="GET /"} 1`, status))
		}
	}
	others := 800 - len(want)/2
	want = append(want, fmt.Sprintf(`requests_total{code="other",method="GET"} %d`, others), fmt.Sprintf(`route_requests_total{code="other",route="GET /"} %d`, others))
	text := scrape(t, tel)
	hasSeries(t, text, want...)
	if n := strings.Count(text, `requests_total{code="`); n != len(want) {
		t.Errorf("%d series, want %d", n, len(want))
	}
}

func TestFileReloadsAreCountedByClosedSets(t *testing.T) {
	tel := newTelemetry(t, telemetry.Options{})
	tel.FileReloaded("PROXY_API_KEY_FILE", "changed")
	tel.FileReloaded(event.FileVariableOf("/etc/passwd"), event.ReloadOutcomeOf("odd"))
	hasSeries(t, scrape(t, tel), `file_reloads_total{file="PROXY_API_KEY_FILE",outcome="changed"} 1`, `file_reloads_total{file="MIMECAST_CA_FILE",outcome="failed"} 0`,
		`file_reloads_total{file="other",outcome="other"} 1`)
}

// stalled is a client that reads nothing until it is told to.
type stalled struct {
	discard
	begun chan<- bool
	read  <-chan bool
}

func (s stalled) Write(b []byte) (int, error) {
	s.begun <- true
	<-s.read
	return len(b), nil
}

func TestClientsThatDoNotReadKeepNobodyFromTheMetrics(t *testing.T) {
	h := newTelemetry(t, telemetry.Options{}).Metrics()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	const clients = 100
	begun, read := make(chan bool), make(chan bool)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() { h.ServeHTTP(stalled{begun: begun, read: read}, r) })
	}
	for range clients { // each has its response before any has read one
		<-begun
	}
	w := &kept{header: http.Header{}}
	h.ServeHTTP(w, r)
	close(read)
	wg.Wait()
	if !strings.Contains(w.String(), "\nmimecast_proxy_requests_in_flight 0\n") || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("%v %q", w.header, w.String())
	}
}
