// Package admin is what operators look at: probes, metrics, the state of the
// proxy as JSON and as a page.
//
// Probes and metrics are for whoever reaches the listener. What shows requests
// or changes something is for this machine alone, which Options.Local sees to.
package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options are what the handler shows.
type Options struct {
	// Token returns the state of the token.
	Token func() TokenState
	// Draining reports whether the proxy has begun to stop; nil means never.
	Draining func() bool
	// Metrics serves /metrics; nil means that there is none.
	Metrics http.Handler
	// Status returns what /api/status and the page show; nil means that there
	// is neither.
	Status func() Status
	// Support completes what /api/support answers with the build and the settings;
	// nil means that there is no such path.
	Support func() Support
	// Quit is called once, after POST /quitquitquit was answered; nil means
	// that there is no such thing.
	Quit func()
	// Local lets a handler be asked from this machine alone, and by no foreign
	// web page. Where it is nil, nothing that needs it is served.
	Local func(http.Handler) http.Handler
	// Demo are buttons on the page; nil, as it is outside of demos, means that
	// the page changes nothing.
	Demo []Action
}

// TokenState is what is known of the token. The token itself is not in it.
type TokenState struct {
	Held     bool `json:"held"`
	Valid    bool `json:"valid"`
	EverHeld bool `json:"ever_held"`
	// Rejected says that Mimecast answered 401 to the one held, and that no
	// other was had since.
	Rejected bool `json:"rejected,omitempty"`
	// The times are zero while no token is held.
	FetchedAt   time.Time `json:"fetched_at,omitzero"`
	Expiry      time.Time `json:"expiry,omitzero"`
	NextRenewal time.Time `json:"next_renewal,omitzero"`
	// LastError is why the last token request failed, in words and without a
	// secret; empty after one that succeeded. Refused says that Mimecast does
	// not accept the credentials, FailedAt when that was, RetryAt when the
	// next request is due, Failures how many failed in a row.
	LastError string    `json:"last_error,omitempty"`
	Refused   bool      `json:"refused,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
	RetryAt   time.Time `json:"retry_at,omitzero"`
	Failures  int       `json:"failures,omitempty"`
}

// handler holds the routes, each by its one exact path.
type handler struct {
	options Options
	routes  map[string]http.Handler
}

// Handler returns the handler of the admin listener. Options.Token must be set.
func Handler(o Options) http.Handler {
	h := &handler{options: o, routes: make(map[string]http.Handler)}
	h.add(get, "/livez", live)
	h.add(get, "/healthz", live)
	h.add(get, "/startupz", h.startup)
	h.add(get, "/readyz", h.ready)
	if o.Metrics != nil {
		h.add(get, "/metrics", o.Metrics.ServeHTTP)
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
			answer(w, http.StatusAccepted, map[string]bool{"quitting": true})
			// The answer goes out before the end begins.
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

// add serves a path to whoever asks.
func (h *handler) add(methods []string, path string, f http.HandlerFunc) {
	h.routes[path] = only(methods, f)
}

// local serves a path to this machine alone.
func (h *handler) local(methods []string, path string, f http.HandlerFunc) {
	var next http.Handler = only(methods, f)
	if !slices.Contains(methods, http.MethodGet) {
		// Local refuses foreign pages; where something is changed, that is
		// asked twice.
		p := http.NewCrossOriginProtection()
		p.SetDenyHandler(http.HandlerFunc(foreign))
		next = p.Handler(next)
	}
	h.routes[path] = h.options.Local(next)
}

// only refuses other methods.
func only(methods []string, f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "This is for "+methods[0]+".")
			return
		}
		f(w, r)
	}
}

// maxHeaderFields is far beyond what browsers and probes send.
const maxHeaderFields = 100

// bodyTimeout is how long a client may take to send a body that nobody reads.
const bodyTimeout = 10 * time.Second

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// Nothing here wants a body, and net/http reads one before it answers.
		// A writer without deadlines is none of net/http's, and has its own.
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
		refuse(w, http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "The request has too many headers.")
		return
	}
	next, ok := h.routes[r.URL.Path]
	if !ok {
		refuse(w, http.StatusNotFound, "not_found", "There is no such path on the admin listener.")
		return
	}
	next.ServeHTTP(w, r)
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // what is shown always marshals
		panic(err)
	}
	send(w, status, "application/json", append(body, '\n'))
}

func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever asked may be gone
}

func foreign(w http.ResponseWriter, _ *http.Request) {
	refuse(w, http.StatusForbidden, "origin_not_allowed", "A web page of another origin sent this request.")
}

// refuse sends an error.
func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]string{"error": code, "message": message})
}
