package admin

import (
	"net/http"

	"mimecast-proxy/event"
)

// Status is what /api/status answers and what the page shows. Its keys are
// stable: keys may be added, none changes its meaning. No secret, token, query
// string, header value or body is anywhere in it.
type Status struct {
	// Verdict is reached by this package.
	Verdict Verdict `json:"verdict"`
	event.Snapshot
	Account Account `json:"account"`
	// Listen is where the proxy takes requests.
	Listen   string `json:"listen"`
	Draining bool   `json:"draining"`
	// MaxRequests is how many requests may be in flight; 0 means that there is no
	// bound.
	MaxRequests int        `json:"max_requests"`
	Token       TokenState `json:"token"`
	// ReportOnly says that routes are only reported.
	ReportOnly bool `json:"report_only"`
	// Warnings are what is odd about the configuration and the machine.
	Warnings []string `json:"warnings"`
}

// Account says whose API is called, and where.
type Account struct {
	// ClientID is shown shortened, whatever its length here.
	ClientID string `json:"client_id"`
	Region   string `json:"region"`
	BaseURL  string `json:"base_url"`
}

// current returns the status as it is shown.
func (h *handler) current() Status {
	s := h.options.Status()
	s.Account.ClientID = shorten(s.Account.ClientID)
	s.Token = h.options.Token()
	s.Draining = h.draining()
	s.Verdict = judge(&s)
	return s
}

// shorten returns enough of a client ID to tell one from another.
func shorten(id string) string {
	const kept = 6
	if runes := []rune(id); len(runes) > kept {
		return string(runes[:kept]) + "…"
	}
	return id
}

func (h *handler) status(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, h.current())
}
