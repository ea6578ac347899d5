package admin

import (
	"net/http"

	"mimecast-proxy/event"
)

// Status is the response of /api/status, and what the page shows. Its keys are
// stable: keys may be added, none changes its meaning. No secret, token, query
// string, header value or body is anywhere in it.
type Status struct {
	// Diagnosis is made by this package.
	Diagnosis Diagnosis `json:"verdict"`
	event.Snapshot
	Account Account `json:"account"`
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

// Account is the account that the proxy uses.
type Account struct {
	// ClientID is shortened before it is shown.
	ClientID string `json:"client_id"`
	Region   string `json:"region"`
	BaseURL  string `json:"base_url"`
	// Credentials says where the credentials come from: a variable, a file or a stored
	// connection.
	Credentials string `json:"credentials"`
}

// current returns the status as it is shown.
func (h *handler) current() Status {
	s := h.options.Status()
	s.Account.ClientID = shorten(s.Account.ClientID)
	s.Token = h.options.Token()
	s.Draining = h.draining()
	s.Diagnosis = diagnose(&s)
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
