package admin

import (
	"net/http"
	"time"

	"mimecast-proxy/event"
)

// Support is the response of /api/support: what support needs to know of a running proxy.
// It contains no secret.
type Support struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	// System is the operating system and the architecture.
	System string `json:"system"`
	// Settings are every variable, in the order of the manual.
	Settings []Setting `json:"settings"`
	// Errors are the last requests that went wrong, newest first.
	Errors []event.Request `json:"errors"`
	Status Status          `json:"status"`
}

// Setting is the value of a variable and where it comes from. The value of a secret is
// only its length.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Origin string `json:"origin"`
	// Changed is when the file of a secret was last changed; zero for other settings.
	Changed time.Time `json:"changed,omitzero"`
}

func (h *handler) support(w http.ResponseWriter, _ *http.Request) {
	s := h.options.Support()
	s.Status = h.current()
	s.Errors = s.Status.Errors
	writeJSON(w, http.StatusOK, s)
}
