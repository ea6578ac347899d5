package app

import (
	"errors"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
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

// status is what the admin listener shows.
func (s *instance) status() admin.Status {
	return admin.Status{
		Snapshot: s.tel.Snapshot(),
		Account:  admin.Account{ClientID: s.cfg.ClientID.Value().Reveal(), Region: s.cfg.Region, BaseURL: s.cfg.BaseURL.String(), Credentials: s.redactor.Redact(s.cfg.Origin(s.cfg.ClientSecret))},
		Listen:   s.dataAddr.String(), MaxRequests: s.cfg.MaxRequests, ReportOnly: s.cfg.AllowReport, Warnings: s.warnings(),
	}
}

// warnings are the configuration's, that the clock is wrong, and which calls exist in API
// 1.0 only.
func (s *instance) warnings() []string {
	all := append([]string{}, s.cfg.Warnings...)
	if fault := clockSkewWarning(time.Duration(s.clockSkew.Load())); fault != "" {
		all = append(all, fault)
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
