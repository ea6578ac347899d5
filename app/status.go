package app

import (
	"errors"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
	"mimecast-proxy/token"
)

// accountStates returns the state of each account for the admin listener.
func (s *instance) accountStates() []admin.Account {
	return convert(s.accounts.list(), func(one *mimecastAccount) admin.Account {
		return admin.Account{
			Name: one.name, ClientID: one.id().Reveal(), Region: one.region, BaseURL: one.baseURL.String(),
			Credentials: s.redactor.Redact(one.origin), InFlight: one.InFlight(), Token: s.tokenState(one),
		}
	})
}

// tokenState returns the state of an account's token source.
func (p *components) tokenState(one *mimecastAccount) admin.TokenState {
	st := one.source.Status()
	state := admin.TokenState{
		Held: st.Held, Valid: st.Valid, EverHeld: st.Held, Rejected: st.Rejected,
		FetchedAt: st.Fetched, Expiry: st.Expiry, NextRenewal: st.NextRenewal,
		FailedAt: st.FailedAt, RetryAt: st.RetryAt, Failures: st.Failures,
	}
	if st.Err != nil {
		state.LastError = p.redactor.Redact(tokenErrorDetail(st.Err))
		e, ok := errors.AsType[*token.Error](st.Err)
		state.Refused = ok && e.Outcome == event.TokenRefused
	}
	return state
}

// status returns the status for the admin listener.
func (s *instance) status() admin.Status {
	return admin.Status{
		Snapshot: s.tel.Snapshot(),
		Listen:   s.dataAddr.String(), MaxRequests: s.cfg.MaxRequests, ReportOnly: s.cfg.AllowReport, Warnings: s.warnings(),
	}
}

// warnings returns the warnings about the configuration, the clock, and calls that exist in
// API 1.0 only.
func (s *instance) warnings() []string {
	all := append([]string{}, s.cfg.Warnings...)
	for _, one := range s.accounts.list() {
		if fault := clockSkewWarning(time.Duration(one.clockSkew.Load())); fault != "" {
			all = append(all, fault)
			break // all accounts see the same clock
		}
	}
	all = append(all, s.api1Only.all()...)
	return convert(all, s.redactor.Redact)
}

func convert[A, B any](from []A, one func(A) B) []B {
	to := make([]B, len(from))
	for i, v := range from {
		to[i] = one(v)
	}
	return to
}
