package admin

import "net/http"

// livez reports that the process serves, and checks nothing else. If it depended on the
// credentials or on Mimecast, a bad secret would cause a crash loop.
func livez(w http.ResponseWriter, _ *http.Request) { writeOK(w) }

func writeOK(w http.ResponseWriter) {
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
}

// startupz reports whether there has been a token.
func (h *handler) startupz(w http.ResponseWriter, _ *http.Request) {
	if reason := notReadyReason(h.options.Token()); reason != "" {
		write(w, http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte(reason+"\n"))
		return
	}
	writeOK(w)
}

// notReadyReason returns why requests cannot be served yet; empty if they can.
func notReadyReason(t TokenState) string {
	switch {
	case t.EverHeld:
		return ""
	case t.LastError != "":
		return "no token was held yet: " + t.LastError
	default:
		return "no token was held yet"
	}
}

// readiness is the response of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Reasons say why it is not ready.
	Reasons []string   `json:"reasons"`
	Token   TokenState `json:"token"`
}

// readyz reports whether to send requests here: there has been a token, and no drain has
// begun. A later failure of the token endpoint or Mimecast does not matter, since neither a
// restart nor another instance would fix it.
func (h *handler) readyz(w http.ResponseWriter, _ *http.Request) {
	state := readiness{Reasons: []string{}, Token: h.options.Token()}
	if reason := notReadyReason(state.Token); reason != "" {
		state.Reasons = append(state.Reasons, reason)
	}
	if h.draining() {
		state.Reasons = append(state.Reasons, "the proxy is shutting down")
	}
	state.Ready = len(state.Reasons) == 0
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, state)
}

func (h *handler) draining() bool { return h.options.Draining != nil && h.options.Draining() }
