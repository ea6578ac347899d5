package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

// busy returns a Telemetry on which every event has happened once.
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
	r.TokenStart("default")
	r.Clock(-90 * time.Second)
	r.TokenDone("default", "startup", "ok", time.Second, time.Now().Add(time.Hour), nil)
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
		`token_requests_total{account="default",outcome="ok",trigger="startup"} 1`,
		`token_request_duration_seconds_count{account="default"} 1`,
		`rate_limit_limit{account="default"} 50`,
		"clock_skew_seconds -90",
		`rate_limit_remaining{account="default"} 49`,
		`rate_limit_waits_total{outcome="recovered"} 1`,
		"replay_buffer_bytes 7",
		`route_requests_total{code="200",route="GET /siem/"} 1`,
		"upstream_duration_seconds_count 1",
	)
	for _, part := range []string{"\nmimecast_proxy_build_info{goversion=\"go", `revision="abc",version="v1"} 1`, "\ngo_goroutines ", "\nprocess_cpu_seconds_total ",
		"\nmimecast_proxy_request_duration_seconds_bucket{le=\"0.005\"} "} {
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
	hasSeries(t, text, `token_requests_total{account="default",outcome="refused",trigger="expiry"} 0`, `token_requests_total{account="default",outcome="ok",trigger="startup"} 0`,
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

// discard is a ResponseWriter for tests without a network. It discards the response.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

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
	tel.FileReloaded(event.FileVariableOf("/etc/passwd"), event.ReloadFailed)
	hasSeries(t, scrape(t, tel), `file_reloads_total{file="PROXY_API_KEY_FILE",outcome="changed"} 1`, `file_reloads_total{file="MIMECAST_CA_FILE",outcome="failed"} 0`,
		`file_reloads_total{file="other",outcome="failed"} 1`)
}

// stalled is the ResponseWriter of a client that reads nothing before it receives from
// read.
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

// TestMetricsThatAreNotGatheredAreNotEmpty cancels a waiting request, as a shutdown
// does.
func TestMetricsThatAreNotGatheredAreNotEmpty(t *testing.T) {
	h := newTelemetry(t, telemetry.Options{}).Metrics()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // if both cases are ready, select picks one at random
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code == http.StatusOK && w.Body.Len() == 0 {
			t.Fatal("an empty 200")
		}
	}
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
	for range clients { // each response is written before any client reads one
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
