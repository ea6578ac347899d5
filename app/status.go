package app

import (
	"errors"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
)

// tokenState is what the token source knows, as the admin listener shows it.
func (s *instance) tokenState() admin.TokenState {
	st := s.source.Status()
	state := admin.TokenState{
		Held: st.Held, Valid: st.Valid, EverHeld: st.Held, Rejected: st.Rejected,
		FetchedAt: st.Fetched, Expiry: st.Expiry, NextRenewal: st.NextRenewal,
		FailedAt: st.FailedAt, RetryAt: st.RetryAt, Failures: st.Failures,
	}
	if st.Err != nil {
		state.LastError = s.redactor.Redact(tokenErrorDetail(st.Err))
		e, ok := errors.AsType[*token.Error](st.Err)
		state.Refused = ok && e.Outcome == event.TokenRefused
	}
	return state
}

// status is what telemetry remembers, as the admin listener shows it. The two
// packages do not know each other, so their equal types are converted here.
func (s *instance) status() admin.Status {
	snap := s.tel.Snapshot()
	status := admin.Status{
		Now: snap.Now, Started: snap.Started, Version: snap.Version,
		Account: admin.Account{ClientID: s.cfg.ClientID.Value().Reveal(), Region: s.cfg.Region, BaseURL: s.cfg.BaseURL.String()},
		Listen:  s.dataAddr.String(), InFlight: snap.InFlight, BusySince: snap.BusySince, MaxRequests: s.cfg.MaxRequests,
		Renewing:    snap.Renewing,
		TokenEvents: convert(snap.TokenEvents, func(e telemetry.TokenEvent) admin.TokenEvent { return admin.TokenEvent(e) }),
		Total:       snap.Total, LastMinute: snap.LastMinute,
		WindowSeconds: snap.WindowSeconds, StepSeconds: snap.StepSeconds,
		Points:   convert(snap.Points, func(p telemetry.Point) admin.Point { return admin.Point(p) }),
		Latency:  admin.Latency(snap.Latency),
		Requests: convert(snap.Requests, func(r telemetry.Request) admin.Request { return admin.Request(r) }),
		Faults:   convert(snap.Faults, func(f telemetry.Fault) admin.Fault { return admin.Fault(f) }),
		Denials:  convert(snap.Denials, func(d telemetry.Denial) admin.Denial { return admin.Denial(d) }),
		Retries:  snap.Retries, ReportOnly: s.cfg.AllowReport, Warnings: s.warnings(),
	}
	if snap.TokenFailure != nil {
		failure := admin.TokenEvent(*snap.TokenFailure)
		status.TokenFailure = &failure
	}
	if snap.RateLimit != nil {
		limit := admin.RateLimit(*snap.RateLimit)
		status.RateLimit = &limit
	}
	return status
}

// warnings are the configuration's, and that the clock is wrong.
func (s *instance) warnings() []string {
	all := append([]string{}, s.cfg.Warnings...)
	if fault := clockSkewWarning(time.Duration(s.clockSkew.Load())); fault != "" {
		all = append(all, fault)
	}
	return convert(all, s.redactor.Redact)
}

func convert[A, B any](from []A, one func(A) B) []B {
	to := make([]B, len(from))
	for i, v := range from {
		to[i] = one(v)
	}
	return to
}
