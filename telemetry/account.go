package telemetry

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
)

// tokenMetrics collects the state of the accounts' tokens.
type tokenMetrics struct{ tokens func() []event.Token }

var (
	tokenExpiry = prometheus.NewDesc(namespace+"_token_expiry_timestamp_seconds", "When the account's current token expires; 0 before the first.", []string{"account"}, nil)
	tokenValid  = prometheus.NewDesc(namespace+"_token_valid", "1 if the account has a token that has not expired and that Mimecast has not rejected, else 0.", []string{"account"}, nil)
)

// Describe implements prometheus.Collector.
func (m tokenMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- tokenExpiry
	to <- tokenValid
}

// Collect implements prometheus.Collector.
func (m tokenMetrics) Collect(to chan<- prometheus.Metric) {
	for _, t := range m.tokens() {
		seconds := 0.0
		if !t.Expiry.IsZero() {
			seconds = float64(t.Expiry.UnixNano()) / float64(time.Second)
		}
		to <- prometheus.MustNewConstMetric(tokenExpiry, prometheus.GaugeValue, seconds, t.Account)
		to <- prometheus.MustNewConstMetric(tokenValid, prometheus.GaugeValue, boolean(t.Usable), t.Account)
	}
}

// AddAccount creates the metrics of an account, with the value 0. Otherwise, rate()
// would miss the first event.
func (t *Telemetry) AddAccount(name string) {
	for _, trigger := range event.TokenTriggers {
		for _, outcome := range event.TokenOutcomes {
			t.metrics.tokens.WithLabelValues(name, string(trigger), string(outcome))
		}
	}
	t.metrics.tokenDuration.WithLabelValues(name)
}

// KeepClients removes the metrics of clients that are not in names. Call it from one
// goroutine at a time.
func (t *Telemetry) KeepClients(names []string) {
	for _, vec := range []*prometheus.CounterVec{t.metrics.byClient, t.metrics.deniedClients, t.metrics.quota.calls} {
		if vec == nil {
			continue
		}
		for _, name := range t.metrics.clients {
			if !slices.Contains(names, name) {
				vec.DeletePartialMatch(prometheus.Labels{"client": name})
			}
		}
	}
	t.metrics.clients = names
	t.recent.keepClients(names) // last, to drop the cached counters deleted above
}

// RemoveAccount removes the metrics of an account that is no longer used.
func (t *Telemetry) RemoveAccount(name string) {
	of := prometheus.Labels{"account": name}
	t.metrics.tokens.DeletePartialMatch(of)
	t.metrics.tokenDuration.DeletePartialMatch(of)
	for _, vec := range []*prometheus.CounterVec{t.metrics.quota.calls, t.metrics.quota.limited, t.metrics.quota.waits, t.metrics.quota.waitSeconds} {
		vec.DeletePartialMatch(of)
	}
	for _, vec := range []*prometheus.GaugeVec{t.metrics.limit, t.metrics.remaining, t.metrics.reset} {
		vec.DeletePartialMatch(of)
	}
}

// accountName returns the name of a request's account; [account.Default] if it has
// none.
func accountName(ctx context.Context) string {
	if a := account.Of(ctx); a != nil && a.Name != "" {
		return a.Name
	}
	return account.Default
}
