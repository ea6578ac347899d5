// Package simulator is a fake Mimecast API 2.0 for the demo and for tests. It behaves as
// Mimecast is documented or was observed to behave, and injects faults on request.
//
// It stores only what clients change (held messages, policies, managed URLs, the emergency
// contact) and the requests it received. The rest is generated from a seed and a clock: a
// day of events takes no memory and is the same in every run.
//
// [New] returns the handlers; [Start] serves them on real listeners.
package simulator

import (
	"cmp"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The default credentials of the first application.
const (
	DefaultClientID     = "demo-client-id"
	DefaultClientSecret = "demo-client-secret"
)

// Options configure a simulator. With the zero value, it behaves like Mimecast without
// faults.
type Options struct {
	// Seed determines the generated data.
	Seed uint64
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
	// ClientID and ClientSecret are the first application's credentials. The defaults are
	// [DefaultClientID] and [DefaultClientSecret].
	ClientID, ClientSecret string
	// Applications are further applications, each with separate tokens and quotas.
	Applications []Application
	// TokenTTL is the lifetime of a token; 0 means 1799 s.
	TokenTTL time.Duration
	// Quotas are the rate limits by path; nil means the ones that Mimecast documents.
	Quotas map[string]Quota
	// HeldMessages is the number of messages in the hold queue; 0 means 250.
	HeldMessages int
	// BlobURL is the base URL of the object store; Start sets it.
	BlobURL string
	// BlobTTL is the lifetime of a presigned URL; 0 means 15 min.
	BlobTTL time.Duration
	// GzipMin is the size in bytes from which a response is compressed if the client
	// accepts it. 0 means 256; a negative value means never.
	GzipMin int
	// RequestLog is the number of remembered requests. 0 means 200; a negative value means
	// none.
	RequestLog int

	// Address is the address at which Start serves the API; empty means a free port of
	// 127.0.0.1.
	Address string
	// HTTP1Only disables HTTP/2 for Start's API.
	HTTP1Only bool
	// Certificate is the defect of the certificate of Start's API.
	Certificate Certificate
}

// Application is an API application: its credentials for the token endpoint.
type Application struct{ ClientID, ClientSecret string }

// ApplicationHeader is a request header for tests; the Mimecast API has no such header. Its
// value is the client ID that the request must be sent with. See [Counts.Misplaced].
const ApplicationHeader = "X-Simulator-Application"

func (o Options) withDefaults() Options {
	o.Now = orElse(o.Now != nil, o.Now, time.Now)
	o.ClientID = cmp.Or(o.ClientID, DefaultClientID)
	o.ClientSecret = cmp.Or(o.ClientSecret, DefaultClientSecret)
	o.TokenTTL = cmp.Or(o.TokenTTL, 1799*time.Second)
	o.Quotas = orElse(o.Quotas != nil, o.Quotas, documentedQuotas)
	o.HeldMessages = cmp.Or(o.HeldMessages, 250)
	o.BlobTTL = cmp.Or(o.BlobTTL, 15*time.Minute)
	o.GzipMin = cmp.Or(o.GzipMin, 256)
	o.RequestLog = cmp.Or(o.RequestLog, 200)
	o.Address = cmp.Or(o.Address, "127.0.0.1:0")
	return o
}

func orElse[T any](ok bool, v, otherwise T) T {
	if ok {
		return v
	}
	return otherwise
}

// Simulator is a Mimecast with one account and one or more applications. Its methods are
// safe for concurrent use, also while it serves.
type Simulator struct {
	opts    Options
	started time.Time
	issuer  issuer
	faults  faults
	limits  limiter
	journal journal
	held    held
	rules   rules
	managed managedURLs
	contact emergencyContact
	routes  routes
	blobKey []byte

	mu        sync.Mutex
	forbidden []string
}

// New returns a simulator without listeners. Serve its API, Blobs and Control handlers, or
// use [Start].
func New(o Options) *Simulator {
	o = o.withDefaults()
	s := &Simulator{opts: o, started: o.Now(), blobKey: randomKey()}
	s.issuer = issuer{first: o.ClientID, secrets: map[string]string{o.ClientID: o.ClientSecret}, ttl: o.TokenTTL, key: randomKey(), generation: map[string]int64{}}
	for _, a := range o.Applications {
		s.issuer.setApplication(a)
	}
	s.limits.init(o.Quotas)
	s.journal.limit = max(o.RequestLog, 0)
	s.journal.application = s.issuer.application
	s.routes = s.endpoints()
	return s
}

func randomKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return key
}

// API returns the handler of the token endpoint and the API.
func (s *Simulator) API() http.Handler {
	return s.journal.record("api", http.HandlerFunc(s.serve))
}

func (s *Simulator) serve(w http.ResponseWriter, r *http.Request) {
	gatewayHeaders(w.Header())
	if r.URL.Path == tokenPath {
		s.journal.countToken()
	}
	if f, ok := s.faults.next(r, s.application(r)); ok {
		s.injectFault(f, w, r)
		return
	}
	s.dispatch(w, r)
}

// dispatch handles a request as a gateway does. It checks the route, token, permission and
// rate limit, then runs the function.
func (s *Simulator) dispatch(w http.ResponseWriter, r *http.Request) {
	methods := s.routes.find(r.URL.Path)
	if methods == nil {
		s.reject(w, r, http.StatusNotFound, "not_found", "The requested resource was not found")
		return
	}
	h := methods.find(r.Method)
	if h == nil {
		w.Header().Set("Allow", methods.allow())
		s.reject(w, r, http.StatusMethodNotAllowed, "method_not_allowed", "The method is not allowed for the requested resource")
		return
	}
	if r.URL.Path == tokenPath || s.admit(w, r) {
		h(w, r)
	}
}

// admit makes the gateway's checks. If the request fails one, admit responds and returns
// false.
func (s *Simulator) admit(w http.ResponseWriter, r *http.Request) bool {
	app, denial := s.issuer.authenticate(r.Header.Values("Authorization"), s.opts.Now())
	if denial != nil {
		s.reject(w, r, http.StatusUnauthorized, denial.code, denial.message)
		return false
	}
	if s.isForbidden(r.URL.Path) {
		s.reject(w, r, http.StatusForbidden, "app_forbidden", "Forbidden to perform the requested operation")
		return false
	}
	if !s.limits.takeCall(w.Header(), r.URL.Path, app, s.opts.Now()) {
		s.reject(w, r, http.StatusTooManyRequests, "too_many_requests", "The rate limit for this function has been exceeded")
		return false
	}
	return true
}

// Forbid makes every path with one of the prefixes respond with 403, as if the application
// lacked the product. It replaces earlier prefixes; without arguments nothing
// is forbidden.
func (s *Simulator) Forbid(prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbidden = slices.Clone(prefixes)
}

func (s *Simulator) isForbidden(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.forbidden, func(p string) bool { return strings.HasPrefix(path, p) })
}

// SetCredentials replaces the credentials of the application of [Options.ClientID], as if
// its key had been regenerated. Live tokens stay valid; Mimecast documents nothing about
// them.
func (s *Simulator) SetCredentials(id, secret string) { s.issuer.setCredentials(id, secret) }

// SetApplication adds an application or replaces its secret; an empty secret removes the
// application. Live tokens stay valid.
func (s *Simulator) SetApplication(a Application) { s.issuer.setApplication(a) }

// SetTokenTTL sets the lifetime of tokens that are issued from now on.
func (s *Simulator) SetTokenTTL(ttl time.Duration) { s.issuer.setTTL(ttl) }

// RevokeTokens revokes the tokens that were issued so far to the applications with the
// given client IDs; without arguments, to all applications.
func (s *Simulator) RevokeTokens(applications ...string) { s.issuer.revoke(applications) }
