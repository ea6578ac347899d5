package admin

import "net/http"

// live says that the process serves. It asks nothing else: were it tied to the
// credentials or to Mimecast, a bad secret would become a crash loop.
func live(w http.ResponseWriter, _ *http.Request) { ok(w) }

func ok(w http.ResponseWriter) {
	send(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
}

// startup says whether a first token was held.
func (h *handler) startup(w http.ResponseWriter, _ *http.Request) {
	if reason := neverHeld(h.options.Token()); reason != "" {
		send(w, http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte(reason+"\n"))
		return
	}
	ok(w)
}

// neverHeld returns why requests cannot be served yet, or nothing.
func neverHeld(t TokenState) string {
	switch {
	case t.EverHeld:
		return ""
	case t.LastError != "":
		return "no token was held yet: " + t.LastError
	default:
		return "no token was held yet"
	}
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Reasons say why not; empty where it is.
	Reasons []string   `json:"reasons"`
	Token   TokenState `json:"token"`
}

// ready says whether to send requests here: a first token was held, and no
// drain has begun. A token endpoint or a Mimecast that fails later changes
// nothing, since neither a restart nor another instance would mend that.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	state := readiness{Reasons: []string{}, Token: h.options.Token()}
	if reason := neverHeld(state.Token); reason != "" {
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
	answer(w, status, state)
}

func (h *handler) draining() bool { return h.options.Draining != nil && h.options.Draining() }
