package admin

import (
	"net/http"
	"slices"

	"mimecast-proxy/event"
)

// Status is the response of /api/status, and what the page shows. Its keys are
// stable: keys may be added, none changes its meaning. No secret, token, query
// string, header value or body is anywhere in it.
type Status struct {
	// Health is the one judgment of how the proxy is.
	Health event.Health `json:"health"`
	event.Snapshot
	// Account is the one to look at: the first whose token is not as it should be, or
	// else the first. Token is its token, and Accounts are all.
	Account  Account   `json:"account"`
	Accounts []Account `json:"accounts"`
	// Listen is the address of the data port.
	Listen   string `json:"listen"`
	Draining bool   `json:"draining"`
	// MaxRequests is how many requests may be in flight; 0 means that there is no
	// bound.
	MaxRequests int        `json:"max_requests"`
	Token       TokenState `json:"token"`
	// ReportOnly says that routes are only reported.
	ReportOnly bool `json:"report_only"`
	// Warnings are about the configuration and the machine.
	Warnings []string `json:"warnings"`
}

// Account is an account that clients use.
type Account struct {
	Name string `json:"name"`
	// ClientID is shortened before it is shown.
	ClientID string `json:"client_id"`
	Region   string `json:"region"`
	BaseURL  string `json:"base_url"`
	// Credentials says where the credentials come from: a variable, a file or a stored
	// connection.
	Credentials string `json:"credentials"`
	// InFlight is the number of its in-flight requests.
	InFlight int        `json:"in_flight"`
	Token    TokenState `json:"token"`
}

// accounts returns the accounts as they are shown.
func (h *handler) accounts() []Account {
	all := h.options.Accounts()
	for i := range all {
		all[i].ClientID = shorten(all[i].ClientID)
	}
	return all
}

// worstAccount returns the account to look at.
func worstAccount(all []Account) Account {
	if len(all) == 0 { // a clients file without a client
		return Account{}
	}
	for _, wrong := range []func(TokenState) bool{
		func(t TokenState) bool { return t.Refused },
		func(t TokenState) bool { return !t.Usable() },
		func(t TokenState) bool { return t.LastError != "" },
	} {
		if i := slices.IndexFunc(all, func(a Account) bool { return wrong(a.Token) }); i >= 0 {
			return all[i]
		}
	}
	return all[0]
}

// current returns the status as it is shown.
func (h *handler) current() Status {
	s := h.options.Status()
	s.Accounts = h.accounts()
	s.Account = worstAccount(s.Accounts)
	s.Token = s.Account.Token
	s.Draining = h.draining()
	s.Health = h.health()
	return s
}

// shorten returns enough of a client ID to distinguish it from others.
func shorten(id string) string {
	const kept = 6
	if runes := []rune(id); len(runes) > kept {
		return string(runes[:kept]) + "…"
	}
	return id
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, h.current())
}
