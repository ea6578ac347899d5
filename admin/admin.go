// Package admin serves the admin listener: probes, metrics, and the status of the proxy as
// JSON and as a page.
//
// Anyone who reaches the listener gets probes and metrics. Paths that show requests or
// change something are for this machine alone; Options.Local checks that.
package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
)

// Options are what the handler shows.
type Options struct {
	// Accounts returns the accounts that clients use.
	Accounts func() []Account
	// Started is when the proxy was started.
	Started time.Time
	// Health judges how the proxy is; nil means that it is always ok.
	Health func() event.Health
	// Draining reports whether the proxy has begun to stop; nil means never.
	Draining func() bool
	// Metrics serves /metrics; nil means that there is none.
	Metrics http.Handler
	// Status returns what /api/status and the page show; nil means that there
	// is neither.
	Status func() Status
	// Support returns the build and the settings for /api/support; nil means that
	// there is no such path.
	Support func() Support
	// CA returns the certificate of interception's authority in PEM form, for /ca.pem;
	// nil means that there is no such path.
	CA func() []byte
	// Quit is called once, after the response to POST /quitquitquit; nil means that
	// there is no such path.
	Quit func()
	// Local lets only this machine call a handler, and no web page of another origin.
	// If it is nil, nothing that needs it is served.
	Local func(http.Handler) http.Handler
	// Demo are buttons on the page. Without them the page changes nothing.
	Demo []Action
}

// TokenState is what the token source knows. It does not contain the token.
type TokenState struct {
	Held     bool `json:"held"`
	Valid    bool `json:"valid"`
	EverHeld bool `json:"ever_held"`
	// Rejected says that Mimecast responded 401 to the current token, and that there
	// is no newer one.
	Rejected bool `json:"rejected,omitempty"`
	// The times are zero while no token is held.
	FetchedAt   time.Time `json:"fetched_at,omitzero"`
	Expiry      time.Time `json:"expiry,omitzero"`
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	// LastError is why the last token request failed, without a secret; empty after one
	// that succeeded. Refused says that Mimecast does not accept the credentials, FailedAt
	// when that was, RetryAt when the next request is due, Failures how many failed in a
	// row.
	LastError string    `json:"last_error,omitempty"`
	Refused   bool      `json:"refused,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
	RetryAt   time.Time `json:"retry_at,omitzero"`
	Failures  int       `json:"failures,omitempty"`
}

// Usable reports whether requests can be sent with the token.
func (t *TokenState) Usable() bool { return t.Valid && !t.Rejected }

// handler holds the routes, each by its one exact path.
type handler struct {
	options Options
	// everReady is whether every account has held a token, at one time: an account that
	// is added later does not take a proxy out that serves others.
	everReady atomic.Bool
	routes    map[string]http.Handler
}

// Handler returns the handler of the admin listener. Options.Accounts must be set.
func Handler(o Options) http.Handler {
	h := &handler{options: o, routes: make(map[string]http.Handler)}
	h.add(get, "/livez", livez)
	h.add(get, "/healthz", livez)
	h.add(get, "/startupz", h.startupz)
	h.add(get, "/readyz", h.readyz)
	if o.Metrics != nil {
		h.add(get, "/metrics", o.Metrics.ServeHTTP)
	}
	if o.CA != nil {
		h.add(get, "/ca.pem", func(w http.ResponseWriter, _ *http.Request) {
			write(w, http.StatusOK, "application/x-pem-file", o.CA())
		})
	}
	if o.Local != nil {
		h.addLocal()
	}
	return h
}

func (h *handler) addLocal() {
	if h.options.Status != nil {
		h.local(get, "/api/status", h.status)
		h.addPage()
	}
	if h.options.Support != nil && h.options.Status != nil {
		h.local(get, "/api/support", h.support)
	}
	if h.options.Quit != nil {
		quit := sync.OnceFunc(h.options.Quit)
		h.local(post, "/quitquitquit", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusAccepted, map[string]bool{"quitting": true})
			// The response is sent before the shutdown begins.
			_ = http.NewResponseController(w).Flush()
			quit()
		})
	}
}

// The methods of a route.
var (
	get  = []string{http.MethodGet, http.MethodHead}
	post = []string{http.MethodPost}
)

// add serves a path to every client.
func (h *handler) add(methods []string, path string, f http.HandlerFunc) {
	h.routes[path] = allowMethods(methods, f)
}

// local serves a path to this machine only.
func (h *handler) local(methods []string, path string, f http.HandlerFunc) {
	var next http.Handler = allowMethods(methods, f)
	if !slices.Contains(methods, http.MethodGet) {
		// Local rejects pages of other origins. What changes something checks twice.
		p := http.NewCrossOriginProtection()
		p.SetDenyHandler(http.HandlerFunc(rejectCrossOrigin))
		next = p.Handler(next)
	}
	h.routes[path] = h.options.Local(next)
}

// allowMethods rejects other methods.
func allowMethods(methods []string, f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "This is for "+methods[0]+".")
			return
		}
		f(w, r)
	}
}

// maxHeaderFields is far beyond what browsers and probes send.
const maxHeaderFields = 100

// bodyTimeout is how long a client may take to send a body, which no handler reads.
const bodyTimeout = 10 * time.Second

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// No handler reads a body, but net/http does before it responds. Only a test's
		// writer has no deadlines.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	fields := 0
	for _, values := range r.Header { // a name may come many times
		fields += len(values)
	}
	if fields > maxHeaderFields {
		writeError(w, http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "The request has too many headers.")
		return
	}
	next, ok := h.routes[r.URL.Path]
	if !ok {
		writeError(w, http.StatusNotFound, "not_found", "There is no such path on the admin listener.")
		return
	}
	next.ServeHTTP(w, r)
}

// writeJSON sends v as JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // these types always marshal
		panic(err)
	}
	write(w, status, "application/json", append(body, '\n'))
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

func rejectCrossOrigin(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusForbidden, "origin_not_allowed", "A web page of another origin sent this request.")
}

// writeError sends an error.
func writeError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]string{"error": code, "message": message})
}
