package app

import (
	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// facts are what the judgment of health needs beside the outcomes of requests.
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

// tokens are what metrics say of the accounts' tokens.
func (a *accounts) tokens() []event.Token {
	return convert(a.list(), func(one *mimecastAccount) event.Token {
		st := one.source.Status()
		return event.Token{Account: one.name, Expiry: st.Expiry, Usable: st.Usable()}
	})
}
