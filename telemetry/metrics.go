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
	"mimecast-proxy/mimecast"
)

const namespace = "mimecast_proxy"

// other is the label for values outside a closed set.
const other = "other"

// Labels for values that clients and Mimecast choose. All other values count as other,
// so that no peer can create time series. The remaining labels have types whose values
// package event lists.
var (
	methods      = []string{other, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
	statusLabels = newStatusLabels()
)

// newStatusLabels returns the labels of the statuses that net/http knows and of the
// proxy's own. Their index is the status minus 99. Mimecast may send any number.
func newStatusLabels() []string {
	labels := make([]string, 600-99)
	for i := range labels {
		labels[i] = other
		if status := i + 99; http.StatusText(status) != "" || status == statusClientGone {
			labels[i] = strconv.Itoa(status)
		}
	}
	return labels
}

// statusIndex returns a status's index in statusLabels; 0 is the index of other.
func statusIndex(status int) int {
	if i := status - 99; i > 0 && i < len(statusLabels) && statusLabels[i] != other {
		return i
	}
	return 0
}

// metrics are the documented metrics, in a separate registry.
type metrics struct {
	registry *prometheus.Registry
	// requests counts requests. counters caches its counters by method and status: the
	// lookup by labels is the most expensive step of counting.
	requests *prometheus.CounterVec
	counters [][]atomic.Pointer[prometheus.Counter]

	duration, upstream prometheus.Histogram
	tokenDuration      *prometheus.HistogramVec

	denied, unauthorized, retries, aborted, tokens, waits, reloads, tunnels *prometheus.CounterVec

	// byClient and deniedClients are nil if no client has a name.
	byClient, deniedClients *prometheus.CounterVec
	// clients has the clients' names. Only KeepClients uses it.
	clients []string

	quota quotaMetrics

	// byRoute is nil if no routes are configured.
	byRoute *prometheus.CounterVec
	routes  []string

	replay prometheus.Gauge
	// limit, remaining and reset have no value before Mimecast sends one.
	limit, remaining, reset *prometheus.GaugeVec
	// clock returns a gauge that has no value before clock is first called.
	clock func() prometheus.Gauge
}

func newMetrics(o Options, t *Telemetry) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), counters: make([][]atomic.Pointer[prometheus.Counter], len(methods))}
	for i := range m.counters {
		m.counters[i] = make([]atomic.Pointer[prometheus.Counter], len(statusLabels))
	}
	m.addRequests(o)
	m.addTokens(o)
	m.addQuotas()
	m.limit = m.gauges("rate_limit_limit", "Latest X-RateLimit-Limit: requests that Mimecast allows in a period.", "account")
	m.remaining = m.gauges("rate_limit_remaining", "Latest X-RateLimit-Remaining: requests left in that period.", "account")
	m.reset = m.gauges("rate_limit_reset_seconds", "Latest X-RateLimit-Reset: time until the quota resets, in seconds.", "account")
	m.waits = m.counter("rate_limit_waits_total", "Requests that waited after 429, by outcome.", labels(event.HoldOutcomes), "outcome")
	m.tunnels = m.counter("intercept_connections_total", "Uses of the forward proxy that have ended, by outcome.", labels(event.InterceptOutcomes), "outcome")
	m.replay = m.gauge("replay_buffer_bytes", "Size of all request bodies kept for a retry.")()
	m.addFiles(o)
	m.constantGauge("requests_in_flight_limit", "Limit of requests in flight; more get 503 too_busy.", o.MaxRequests)
	m.constantGauge("replay_buffer_limit_bytes", "Limit of replay_buffer_bytes; beyond it requests are not retried.", o.ReplayMemory)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "The running version, as labels; always 1.",
		ConstLabels: prometheus.Labels{"version": o.Version, "revision": o.Revision, "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Name: "requests_in_flight", Help: "Requests in flight.",
		}, func() float64 { return float64(t.inFlight.Load()) }))
	return m
}

func (m *metrics) addFiles(o Options) {
	m.reloads = m.counter("file_reloads_total", "Changes of files, by variable and outcome.", nil, "file", "outcome")
	for _, file := range event.FileVariables {
		for _, outcome := range event.ReloadOutcomes {
			m.reloads.WithLabelValues(string(file), string(outcome)) // so that rate() sees the first event
		}
	}
	w, _ := o.Output.(*LogWriter)
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: namespace, Name: "log_lines_dropped_total", Help: "Log lines dropped because they could not be written in time.",
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
	m.requests = m.counter("requests_total", "Requests, by method and status of the response; 499 if the client disconnected first.", nil, "method", "code")
	m.duration = m.histogram("request_duration_seconds", "Time from the request's headers to the end of the response.")
	m.upstream = m.histogram("upstream_duration_seconds", "Time from sending a request to Mimecast to the headers of the response.")
	m.aborted = m.counter("requests_aborted_total", "Responses cut short, by which side cut them.", labels(event.AbortedBySides), "by")
	m.denied = m.counter("requests_denied_total", "Requests rejected before anything was sent to Mimecast, by code; in report mode, requests that would be.", deniedReasons(), "reason")
	m.unauthorized = m.counter("unauthorized_total", "Responses with 401 from Mimecast, by the code in their body.", labels(event.UnauthorizedReasons), "reason")
	m.retries = m.counter("unauthorized_retries_total", "Responses with 401 from Mimecast, by outcome.", labels(event.RetryOutcomes), "outcome")
	if o.Clients {
		m.byClient = m.counter("client_requests_total", "Requests of named clients, by client and status of the response.", nil, "client", "code")
		m.deniedClients = m.counter("client_denied_total", "Requests of named clients that were rejected, by client and code; in report mode, those that would be.", nil, "client", "reason")
	}
	if len(o.Routes) > 0 {
		m.routes = o.Routes
		m.byRoute = m.counter("route_requests_total", "Requests, by route of PROXY_ALLOW and status of the response.", nil, "route", "code")
	}
}

func (m *metrics) addTokens(o Options) {
	m.tokens = m.counter("token_requests_total", "Token requests, by account, trigger and outcome.", nil, "account", "trigger", "outcome")
	m.clock = m.gauge("clock_skew_seconds", "This machine's clock minus the token endpoint's; negative if this clock is behind.")
	m.tokenDuration = prometheus.NewHistogramVec(histogramOptions("token_request_duration_seconds", "Duration of token requests."), []string{"account"})
	m.registry.MustRegister(m.tokenDuration)
	if o.Tokens != nil {
		m.registry.MustRegister(tokenMetrics{o.Tokens})
	}
	if o.Health != nil {
		m.registry.MustRegister(healthMetrics{o.Health})
	}
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

// labels returns the values of a closed set as strings.
func labels[T ~string](set []T) []string {
	out := make([]string, len(set))
	for i, v := range set {
		out[i] = string(v)
	}
	return out
}

// counter registers a counter with labels. If there is a single label, values are its
// values, whose counters are created at once. Otherwise, rate() would miss the first
// event.
func (m *metrics) counter(name, help string, values []string, labels ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	for _, value := range values {
		vec.WithLabelValues(value)
	}
	m.registry.MustRegister(vec)
	return vec
}

// gauges registers a gauge with labels.
func (m *metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(vec)
	return vec
}

// gauge registers a gauge that has no value before the returned func is first called.
func (m *metrics) gauge(name, help string) func() prometheus.Gauge {
	vec := m.gauges(name, help)
	return sync.OnceValue(func() prometheus.Gauge { return vec.WithLabelValues() })
}

// constantGauge registers a gauge with a constant value, unless the value is 0.
func (m *metrics) constantGauge(name, help string, value int64) {
	if value != 0 {
		m.gauge(name, help)().Set(float64(value))
	}
}

// histogram registers a histogram of seconds, both classic and native. Its buckets
// reach 120 s, since Mimecast may take minutes to find a message.
func (m *metrics) histogram(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(histogramOptions(name, help))
	m.registry.MustRegister(h)
	return h
}

func histogramOptions(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// observe counts a request that has ended.
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
		m.byRoute.WithLabelValues(route, statusLabels[statusIndex(o.status)]).Inc()
	}
}

func (m *metrics) request(method string, status int) prometheus.Counter {
	i, code := max(0, slices.Index(methods, method)), statusIndex(status)
	cached := &m.counters[i][code]
	if c := cached.Load(); c != nil {
		return *c
	}
	c := m.requests.WithLabelValues(methods[i], statusLabels[code])
	cached.Store(&c)
	return c
}

func (m *metrics) setRateLimit(account string, q mimecast.Quota) {
	if q.Limit != mimecast.NotStated {
		m.limit.WithLabelValues(account).Set(float64(q.Limit))
	}
	if q.Remaining != mimecast.NotStated {
		m.remaining.WithLabelValues(account).Set(float64(q.Remaining))
	}
	if q.ResetMS != mimecast.NotStated {
		m.reset.WithLabelValues(account).Set(float64(q.ResetMS) / 1000)
	}
}

// Metrics returns the handler of /metrics. It gathers into memory, so that a slow
// client does not hold one of the few gathering slots.
func (t *Telemetry) Metrics() http.Handler {
	gather := promhttp.HandlerFor(t.metrics.registry, promhttp.HandlerOpts{ErrorLog: t.StdLog("warn")})
	slots := make(chan struct{}, maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
		case <-r.Context().Done():
			// An empty 200 would mean that all series have ended.
			http.Error(w, "the proxy is shutting down", http.StatusServiceUnavailable)
			return
		}
		res := bufferedResponse{header: w.Header()}
		func() {
			defer func() { <-slots }()
			gather.ServeHTTP(&res, r)
		}()
		w.WriteHeader(cmp.Or(res.status, http.StatusOK))
		_, _ = w.Write(res.body.Bytes()) // the client may have disconnected
	})
}

// maxScrapes limits how many requests gather metrics at once. Anyone who reaches the
// listener can send one.
const maxScrapes = 2

// bufferedResponse is an http.ResponseWriter that buffers the body.
type bufferedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter. It returns the header of the real response.
func (r *bufferedResponse) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter. The first status counts.
func (r *bufferedResponse) WriteHeader(status int) { r.status = cmp.Or(r.status, status) }

// Write implements http.ResponseWriter.
func (r *bufferedResponse) Write(text []byte) (int, error) { return r.body.Write(text) }
