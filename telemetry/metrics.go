package telemetry

import (
	"bytes"
	"cmp"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mimecast-proxy/event"
)

const namespace = "mimecast_proxy"

// other is the label of whatever is in no closed set.
const other = "other"

// The labels of what clients and Mimecast choose. What is in neither is counted as
// other, so that nobody outside can make a new time series. All other labels are of
// types whose values event lists.
var (
	methods = []string{other, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
	codes   = registeredCodes()
)

// registeredCodes returns the labels of the statuses that HTTP knows, and of the
// proxy's own, by their numbers less 99. Mimecast may answer with any number.
func registeredCodes() []string {
	labels := make([]string, 600-99)
	for i := range labels {
		labels[i] = other
		if status := i + 99; http.StatusText(status) != "" || status == statusClientGone {
			labels[i] = strconv.Itoa(status)
		}
	}
	return labels
}

// codeIndex returns where in codes the label of a status is; 0 is other's.
func codeIndex(status int) int {
	if i := status - 99; i > 0 && i < len(codes) && codes[i] != other {
		return i
	}
	return 0
}

// metrics are those of the contract, on a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	// requests, and its counters by method and status once they are needed:
	// looking one up by its labels costs more than all else here.
	requests *prometheus.CounterVec
	counters [][]atomic.Pointer[prometheus.Counter]

	duration, upstream, tokenDuration prometheus.Histogram

	denied, unauthorized, retries, aborted, tokens, waits, reloads *prometheus.CounterVec

	// byRoute is nil where no routes are configured.
	byRoute *prometheus.CounterVec
	routes  []string

	replay prometheus.Gauge
	// The rate limit's gauges have no value before Mimecast names one.
	limit, remaining, reset func() prometheus.Gauge
	// So has this one before Mimecast's clock is known.
	clock func() prometheus.Gauge
}

func newMetrics(o Options, t *Telemetry) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), counters: make([][]atomic.Pointer[prometheus.Counter], len(methods))}
	for i := range m.counters {
		m.counters[i] = make([]atomic.Pointer[prometheus.Counter], len(codes))
	}
	m.addRequests(o)
	m.addTokens(t)
	m.limit = m.gauge("rate_limit_limit", "Requests that Mimecast allows in a period, as its last answer that told so said.")
	m.remaining = m.gauge("rate_limit_remaining", "Requests left in that period.")
	m.reset = m.gauge("rate_limit_reset_seconds", "Time until Mimecast gives back, as it said then; it says so in milliseconds.")
	m.waits = m.counter("rate_limit_waits_total", "Requests that got 429 and were held back, by how that ended.", labels(event.HoldOutcomes), "outcome")
	m.replay = m.gauge("replay_buffer_bytes", "Size of all request bodies that are kept for a retry.")()
	m.addFiles(o)
	m.bound("requests_in_flight_limit", "Requests that may be in flight; past them 503 too_busy.", o.MaxRequests)
	m.bound("replay_buffer_limit_bytes", "What all kept bodies may take; past it requests have no retry.", o.ReplayMemory)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "What is running, as labels; the value is 1.",
		ConstLabels: prometheus.Labels{"version": o.Version, "revision": o.Revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "requests_in_flight", Help: "Requests that are being served.",
		}, func() float64 { return float64(t.inFlight.Load()) }))
	return m
}

func (m *metrics) addFiles(o Options) {
	m.reloads = m.counter("file_reloads_total", "Files that changed, by variable and by whether the new version is in force.", nil, "file", "outcome")
	for _, file := range event.FileVariables {
		for _, outcome := range event.ReloadOutcomes {
			m.reloads.WithLabelValues(string(file), string(outcome)) // for rate(), as those of one label
		}
	}
	w, _ := o.Output.(*LogWriter)
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: namespace, Name: "log_lines_dropped_total", Help: "Log lines that could not be written in time and were dropped.",
	}, func() float64 {
		if w == nil {
			return 0
		}
		return float64(w.Dropped())
	}))
}

// FileReloaded counts a change of a file that a variable names.
func (t *Telemetry) FileReloaded(file event.FileVariable, outcome event.ReloadOutcome) {
	t.metrics.reloads.WithLabelValues(string(file), string(outcome)).Inc()
}

func (m *metrics) addRequests(o Options) {
	m.requests = m.counter("requests_total", "Requests answered, by method and status; 499 where the client left before.", nil, "method", "code")
	m.duration = m.histogram("request_duration_seconds", "Time from a request's headers to the end of its answer.")
	m.upstream = m.histogram("upstream_duration_seconds", "Time from sending a request to Mimecast to the headers of its answer.")
	m.aborted = m.counter("requests_aborted_total", "Answers cut short, by who cut them.", labels(event.AbortedBySides), "by")
	m.denied = m.counter("requests_denied_total", "Requests refused before anything was sent to Mimecast, by the code of the answer; in report mode, those that would be.", deniedReasons(), "reason")
	m.unauthorized = m.counter("unauthorized_total", "401 answers of Mimecast's, by the code in them.", labels(event.UnauthorizedReasons), "reason")
	m.retries = m.counter("unauthorized_retries_total", "How 401 answers of Mimecast's ended.", labels(event.RetryOutcomes), "outcome")
	if len(o.Routes) > 0 {
		m.routes = o.Routes
		m.byRoute = m.counter("route_requests_total", "Requests answered, by the route of PROXY_ALLOW that let them pass.", nil, "route", "code")
	}
}

func (m *metrics) addTokens(t *Telemetry) {
	m.tokens = m.counter("token_requests_total", "Token requests, by what caused them and how they ended.", nil, "trigger", "outcome")
	for _, trigger := range event.TokenTriggers {
		for _, outcome := range event.TokenOutcomes {
			m.tokens.WithLabelValues(string(trigger), string(outcome)) // for rate(), as those of one label
		}
	}
	m.clock = m.gauge("clock_skew_seconds", "How far this machine's clock is ahead of the token endpoint's; below 0: behind.")
	m.tokenDuration = m.histogram("token_request_duration_seconds", "Time that token requests took.")
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "token_expiry_timestamp_seconds", Help: "When the token held expires; 0 before the first.",
		}, func() float64 { return float64(t.expiry.Load()) / float64(time.Second) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "token_valid", Help: "1 while a token is held that has not expired, else 0.",
		}, func() float64 {
			if t.expiry.Load() > time.Now().UnixNano() {
				return 1
			}
			return 0
		}))
}

func deniedReasons() []string {
	var reasons []string
	for _, k := range kinds {
		if k.Rejection {
			reasons = append(reasons, string(k.Code))
		}
	}
	return reasons
}

// labels returns the values of a closed set.
func labels[T ~string](set []T) []string {
	out := make([]string, len(set))
	for i, v := range set {
		out[i] = string(v)
	}
	return out
}

// counter makes counters with labels. Those of a single label are made at once
// for each of its values, so that the first event is an increase and not a
// beginning, which rate() would not see.
func (m *metrics) counter(name, help string, values []string, labels ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	for _, value := range values {
		vec.WithLabelValues(value)
	}
	m.registry.MustRegister(vec)
	return vec
}

// gauge makes a gauge that does not show before it is first called for.
func (m *metrics) gauge(name, help string) func() prometheus.Gauge {
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, nil)
	m.registry.MustRegister(vec)
	return sync.OnceValue(func() prometheus.Gauge { return vec.WithLabelValues() })
}

// bound makes a gauge of what does not change, unless it is 0.
func (m *metrics) bound(name, help string, value int64) {
	if value != 0 {
		m.gauge(name, help)().Set(float64(value))
	}
}

// histogram makes a histogram of seconds, both classic and native. Mimecast
// may take minutes to find a message.
func (m *metrics) histogram(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	})
	m.registry.MustRegister(h)
	return h
}

// observe counts a request that is over.
func (m *metrics) observe(method string, o *outcome) {
	m.duration.Observe(o.took.Seconds())
	m.request(method, o.status).Inc()
	if o.aborted != "" {
		m.aborted.WithLabelValues(string(o.aborted)).Inc()
	}
	if m.byRoute != nil {
		route := other
		if slices.Contains(m.routes, o.route) {
			route = o.route
		}
		m.byRoute.WithLabelValues(route, codes[codeIndex(o.status)]).Inc()
	}
}

func (m *metrics) request(method string, status int) prometheus.Counter {
	i, code := max(0, slices.Index(methods, method)), codeIndex(status)
	held := &m.counters[i][code]
	if c := held.Load(); c != nil {
		return *c
	}
	c := m.requests.WithLabelValues(methods[i], codes[code])
	held.Store(&c)
	return c
}

func (m *metrics) setRateLimit(q quota) {
	if q.limit != unsaid {
		m.limit().Set(q.limit)
	}
	if q.remaining != unsaid {
		m.remaining().Set(q.remaining)
	}
	if q.reset != unsaid {
		m.reset().Set(q.reset / 1000)
	}
}

// Metrics returns the handler of /metrics. A client that does not read its response
// holds none of the few places for gathering: the response is made in memory.
func (t *Telemetry) Metrics() http.Handler {
	gather := promhttp.HandlerFor(t.metrics.registry, promhttp.HandlerOpts{ErrorLog: t.StdLog("warn")})
	places := make(chan struct{}, maxGathering)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
		case <-r.Context().Done():
			return
		}
		res := response{header: w.Header()}
		func() {
			defer func() { <-places }()
			gather.ServeHTTP(&res, r)
		}()
		w.WriteHeader(cmp.Or(res.status, http.StatusOK))
		_, _ = w.Write(res.body.Bytes()) // whoever asked may be gone
	})
}

// maxGathering is how many clients' metrics are gathered at once. Whoever reaches
// the listener may ask.
const maxGathering = 2

// response is an http.ResponseWriter that keeps the body.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns that of the response it is for.
func (r *response) Header() http.Header { return r.header }

// WriteHeader notes the status.
func (r *response) WriteHeader(status int) { r.status = cmp.Or(r.status, status) }

// Write keeps the text.
func (r *response) Write(text []byte) (int, error) { return r.body.Write(text) }
