package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"mimecast-proxy/event"
)

// ended reports the outcome of a request to Options.Ended.
func (t *Telemetry) ended(rec *record, o *outcome) {
	if t.onEnd == nil {
		return
	}
	ended := event.Outcome{
		At: rec.start.Add(o.took), Method: rec.method, Path: rec.path, Status: o.status, Client: o.client, Account: o.account,
		Code: o.fault, Answered: o.answered, Local: o.attempts == 0, LimitOwner: o.limitOwner(),
	}
	if !o.sent.IsZero() {
		ended.Waited = ended.At.Sub(o.sent)
	}
	if o.attempts > 0 {
		ended.Own, ended.Upstream = o.proxyTime, o.upstream
	}
	t.onEnd(ended)
}

// HealthChanged logs a change of the health state or its cause.
func (t *Telemetry) HealthChanged(h event.Health) {
	level := zerolog.InfoLevel
	switch {
	case h.State == event.HealthDown:
		level = zerolog.ErrorLevel
	case h.State == event.HealthDegraded && h.Cause != event.Cause(event.ShuttingDown): // a shutdown is intended
		level = zerolog.WarnLevel
	}
	e := t.log.WithLevel(level)
	if e == nil {
		return
	}
	e.Str(timeField, formatTime(h.Since)).Str(t.msgField, "health changed").Str("state", string(h.State))
	optional(e, "component", string(h.Component))
	optional(e, "cause", string(h.Cause))
	optional(e, "account", h.Account)
	optional(e, "client", h.Client)
	e.Int("requests", h.Requests).Int("failed", h.Failed).Int("window_s", h.WindowSeconds).Str("detail", t.scrub(h.Text))
	e.Send()
}

// healthMetrics collects the health judgment.
type healthMetrics struct{ health func() event.Health }

var (
	healthGauge   = prometheus.NewDesc(namespace+"_health", "1 for the current state of health and its component, else 0; the component is empty for ok.", []string{"state", "component"}, nil)
	healthShare   = prometheus.NewDesc(namespace+"_health_affected_ratio", "Share of requests in the judgment's window that failed for a cause that is still present, from 0 to 1. Of an account that is down without a token, all count.", nil, nil)
	accountHealth = prometheus.NewDesc(namespace+"_account_health", "1 for the account's current state of health, else 0.", []string{"account", "state"}, nil)
	clientHealth  = prometheus.NewDesc(namespace+"_client_health", "1 for the named client's current state of health, else 0.", []string{"client", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (m healthMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{healthGauge, healthShare, accountHealth, clientHealth} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m healthMetrics) Collect(to chan<- prometheus.Metric) {
	h := m.health()
	gauge := func(of *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(of, prometheus.GaugeValue, v, labels...)
	}
	for _, state := range event.HealthStates {
		components := event.Components
		if state == event.HealthOK {
			components = []event.Component{""}
		}
		for _, component := range components {
			gauge(healthGauge, boolean(h.State == state && h.Component == component), string(state), string(component))
		}
	}
	gauge(healthShare, h.AffectedShare)
	for of, all := range map[*prometheus.Desc][]event.NamedJudgment{accountHealth: h.Accounts, clientHealth: h.Clients} {
		for _, one := range all {
			for _, state := range event.HealthStates {
				gauge(of, boolean(one.State == state), one.Name, string(state))
			}
		}
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
