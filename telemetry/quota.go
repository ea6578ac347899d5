package telemetry

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

// quotaMetrics has the metrics of quotas, by function of Mimecast. Its gauges are
// collected from the current quotas.
type quotaMetrics struct {
	calls, limited, waits, waitSeconds *prometheus.CounterVec
	// read returns the current quotas; nil before ShowQuotas.
	read func() []event.Quota
}

var (
	quotaLabels    = []string{"account", "function"}
	quotaLimit     = prometheus.NewDesc(namespace+"_quota_limit", "Calls that Mimecast allows to the function in its window.", quotaLabels, nil)
	quotaRemaining = prometheus.NewDesc(namespace+"_quota_remaining", "Calls that are left in that window. For functions without a separate label, those of the one that has least left.", quotaLabels, nil)
	quotaReset     = prometheus.NewDesc(namespace+"_quota_reset_seconds", "Time until that window ends, in seconds.", quotaLabels, nil)
)

func (m *metrics) addQuotas() {
	m.quota.calls = m.counter("quota_calls_total", "Responses that stated a quota, by account, function and client. Clients without a name have an empty one.", nil, "account", "function", "client")
	m.quota.limited = m.counter("quota_limited_total", "Of those, the ones with 429.", nil, quotaLabels...)
	m.quota.waits = m.counter("quota_waits_total", "Calls that came too early for their share of a quota, by outcome; with PROXY_RATE_LIMIT_PACE=observe, calls that would have waited.", nil, "account", "function", "outcome")
	m.quota.waitSeconds = m.counter("quota_wait_seconds_total", "How long they waited, or would have waited, in all.", nil, quotaLabels...)
	m.registry.MustRegister(&m.quota)
}

// Describe implements prometheus.Collector.
func (m *quotaMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- quotaLimit
	to <- quotaRemaining
	to <- quotaReset
}

// Collect implements prometheus.Collector.
func (m *quotaMetrics) Collect(to chan<- prometheus.Metric) {
	if m.read == nil {
		return
	}
	type key struct{ account, function string }
	scarcest := map[key]event.Quota{}
	for _, q := range m.read() {
		k := key{q.Account, q.Function}
		if other, ok := scarcest[k]; !ok || q.Remaining*other.Limit < other.Remaining*q.Limit {
			scarcest[k] = q
		}
	}
	now := time.Now()
	for k, q := range scarcest {
		gauge := func(of *prometheus.Desc, v float64) {
			to <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, v, k.account, k.function)
		}
		gauge(quotaLimit, float64(q.Limit))
		gauge(quotaRemaining, float64(q.Remaining))
		if !q.Reset.IsZero() {
			gauge(quotaReset, max(0, q.Reset.Sub(now).Seconds()))
		}
	}
}

// ShowQuotas sets read, which returns the quotas for the metrics and the status page.
// Call it before the first request.
func (t *Telemetry) ShowQuotas(read func() []event.Quota) { t.metrics.quota.read = read }

// QuotaCalled counts a response that states a quota of the function.
func (t *Telemetry) QuotaCalled(ctx context.Context, function string, status int) {
	account, client := accountName(ctx), ""
	withRecord(ctx, func(r *record) { client = r.events.client })
	t.metrics.quota.calls.WithLabelValues(account, function, client).Inc()
	limited := t.metrics.quota.limited.WithLabelValues(account, function)
	if status == http.StatusTooManyRequests {
		limited.Inc()
	}
}

// Paced counts a call that came too early, and how long it waited or would have waited.
func (t *Telemetry) Paced(ctx context.Context, function string, waited time.Duration, outcome event.PaceOutcome) {
	account := accountName(ctx)
	t.metrics.quota.waits.WithLabelValues(account, function, string(outcome)).Inc()
	t.metrics.quota.waitSeconds.WithLabelValues(account, function).Add(waited.Seconds())
	if outcome != event.PaceWouldWait {
		withRecord(ctx, func(r *record) { r.events.clientWait += waited }) // not counted as the proxy's time
	}
}

// rateLimit converts a quota for the status page.
func rateLimit(q mimecast.Quota, at time.Time) *event.RateLimit {
	stated := func(n int64) *float64 {
		if n == mimecast.NotStated {
			return nil
		}
		f := float64(n)
		return &f
	}
	return &event.RateLimit{Limit: stated(q.Limit), Remaining: stated(q.Remaining), ResetMS: stated(q.ResetMS), SeenAt: at}
}
