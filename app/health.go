package app

import (
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// facts returns the state that health checks in addition to the outcomes of requests.
func (p *components) facts() health.Facts {
	facts := health.Facts{
		Draining: p.draining.Load(), InFlight: p.guard.InFlight(), MaxRequests: p.cfg.MaxRequests, Waiting: p.tel.Waiting(),
		Accounts: convert(p.accounts.list(), func(one *mimecastAccount) health.Account {
			t := p.tokenState(one)
			return health.Account{
				Name: one.name, Usable: t.Usable(), Fetched: t.FetchedAt,
				Failures: t.Failures, Error: t.LastError, Refused: t.Refused,
			}
		}),
	}
	if !p.cfg.Clients.IsZero() {
		facts.Clients = convert(p.cfg.Clients.Current().Clients, func(c config.Client) string { return c.Name })
	}
	return facts
}

// tokens returns the state of each account's token for metrics.
func (a *accounts) tokens() []event.Token {
	return convert(a.list(), func(one *mimecastAccount) event.Token {
		st := one.source.Status()
		return event.Token{Account: one.name, Expiry: st.Expiry, Usable: st.Usable()}
	})
}
