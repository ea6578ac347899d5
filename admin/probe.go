package admin

import (
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/event"
)

// livez reports that the process serves, and checks nothing else. If it depended on the
// credentials or on Mimecast, a bad secret would cause a crash loop.
func livez(w http.ResponseWriter, _ *http.Request) { writeOK(w) }

func writeOK(w http.ResponseWriter) {
	write(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
}

// startupTime is how long the start waits for tokens. After that a client starts without
// one and gets the error, and no probe restarts the proxy.
const startupTime = time.Minute

// isStarting reports whether the start still waits for tokens.
func (h *handler) isStarting() bool { return time.Since(h.options.Started) < startupTime }

// startupz reports whether every account has held a token, or a minute has passed.
func (h *handler) startupz(w http.ResponseWriter, _ *http.Request) {
	if reasons := h.notReadyReasons(h.options.Accounts()); len(reasons) > 0 && h.isStarting() {
		write(w, http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte(strings.Join(reasons, "\n")+"\n"))
		return
	}
	writeOK(w)
}

// notReadyReasons returns why requests cannot be served yet; none if they can.
func (h *handler) notReadyReasons(all []Account) []string {
	reasons := []string{}
	if h.everReady.Load() {
		return reasons
	}
	for _, a := range all {
		if reason := notReadyReason(a.Token); reason != "" {
			if len(all) > 1 {
				reason = "account " + a.Name + ": " + reason
			}
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) > 0 && (len(reasons) == len(all) || h.isStarting()) {
		return reasons
	}
	h.everReady.Store(true) // one account without a token takes nothing from the others
	return []string{}
}

// notReadyReason returns why an account cannot serve requests yet; empty if it can.
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
	Reasons []string `json:"reasons"`
	// Token is that of the account to look at, and Tokens are those of all accounts, by
	// name.
	Token  TokenState            `json:"token"`
	Tokens map[string]TokenState `json:"tokens"`
	// Health says how the proxy is, which does not change whether it is ready.
	Health event.Judgment `json:"health"`
}

// readyz reports whether to send requests here: every account has held a token, and no
// drain has begun. A later failure of the token endpoint or Mimecast does not matter,
// since neither a restart nor another instance would fix it.
func (h *handler) readyz(w http.ResponseWriter, _ *http.Request) {
	all := h.options.Accounts()
	state := readiness{Reasons: h.notReadyReasons(all), Token: worstAccount(all).Token, Tokens: map[string]TokenState{}, Health: h.health().Judgment}
	for _, a := range all {
		state.Tokens[a.Name] = a.Token
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

func (h *handler) health() event.Health {
	if h.options.Health == nil {
		return event.Health{Judgment: event.Judgment{State: event.HealthOK}}
	}
	return h.options.Health()
}

func (h *handler) draining() bool { return h.options.Draining != nil && h.options.Draining() }
