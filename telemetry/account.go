package telemetry

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
)

// expiries has when the accounts' tokens expire, and is the collector of the metrics
// that say so. The zero value has no account.
type expiries struct {
	mu        sync.Mutex // guards byAccount
	byAccount map[string]time.Time
}

var (
	tokenExpiry = prometheus.NewDesc(namespace+"_token_expiry_timestamp_seconds", "When the account's current token expires; 0 before the first.", []string{"account"}, nil)
	tokenValid  = prometheus.NewDesc(namespace+"_token_valid", "1 if the account has a token that has not expired, else 0.", []string{"account"}, nil)
)

// set notes when the account's token expires; the zero time: there is none yet.
func (e *expiries) set(name string, expiry time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byAccount == nil {
		e.byAccount = make(map[string]time.Time)
	}
	e.byAccount[name] = expiry
}

// renew is set for an account that is known.
func (e *expiries) renew(name string, expiry time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.byAccount[name]; known {
		e.byAccount[name] = expiry
	}
}

func (e *expiries) remove(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byAccount, name)
}

// Describe implements prometheus.Collector.
func (e *expiries) Describe(to chan<- *prometheus.Desc) {
	to <- tokenExpiry
	to <- tokenValid
}

// Collect implements prometheus.Collector.
func (e *expiries) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, expiry := range e.byAccount {
		seconds, valid := 0.0, 0.0
		if !expiry.IsZero() {
			seconds = float64(expiry.UnixNano()) / float64(time.Second)
		}
		if expiry.After(now) {
			valid = 1
		}
		to <- prometheus.MustNewConstMetric(tokenExpiry, prometheus.GaugeValue, seconds, name)
		to <- prometheus.MustNewConstMetric(tokenValid, prometheus.GaugeValue, valid, name)
	}
}

// AddAccount makes the metrics of an account, so that its first event is an increase and
// not a beginning, which rate() would not see.
func (t *Telemetry) AddAccount(name string) {
	t.expiries.set(name, time.Time{})
	for _, trigger := range event.TokenTriggers {
		for _, outcome := range event.TokenOutcomes {
			t.metrics.tokens.WithLabelValues(name, string(trigger), string(outcome))
		}
	}
	t.metrics.tokenDuration.WithLabelValues(name)
}

// KeepClients forgets the counts of clients that names does not have.
func (t *Telemetry) KeepClients(names []string) {
	t.recent.keepClients(names)
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
}

// RemoveAccount forgets the metrics of an account that is no longer used.
func (t *Telemetry) RemoveAccount(name string) {
	t.expiries.remove(name)
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

// accountName names the account of a request.
func accountName(ctx context.Context) string {
	if a := account.Of(ctx); a != nil && a.Name != "" {
		return a.Name
	}
	return account.Default
}
