// Package simulator is a fake Mimecast API 2.0 for the demo and for tests: a server that
// behaves as Mimecast does, as far as that is documented or was observed, and that injects
// faults on command.
//
// It stores what changes (held messages, policies, managed URLs, the emergency contact,
// received requests) and generates the rest on demand from a seed and a clock, so that a
// day of events takes no memory and is the same every time.
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

// The credentials of the first application, unless Options say otherwise.
const (
	DefaultClientID     = "demo-client-id"
	DefaultClientSecret = "demo-client-secret"
)

// Options are what a simulator is made from. The zero value is a Mimecast that
// behaves well.
type Options struct {
	// Seed decides every detail of the data.
	Seed uint64
	// Now is the clock; time.Now unless set.
	Now func() time.Time
	// ClientID and ClientSecret are the first application's; [DefaultClientID] and
	// [DefaultClientSecret] unless set.
	ClientID, ClientSecret string
	// Applications are further applications, each with its own tokens and quotas.
	Applications []Application
	// TokenTTL is how long a token lives; 1799 s unless set.
	TokenTTL time.Duration
	// Quotas are the rate limits by path; nil means those that Mimecast
	// documents.
	Quotas map[string]Quota
	// HeldMessages is how many messages wait in the hold queue; 250 unless set.
	HeldMessages int
	// BlobURL is the base URL at which Blobs is served; Start sets it.
	BlobURL string
	// BlobTTL is how long a presigned address lives; 15 min unless set.
	BlobTTL time.Duration
	// GzipMin is the smallest response that is compressed for a client that
	// accepts it, in bytes; 256 unless set, never if negative.
	GzipMin int
	// RequestLog is how many requests are remembered; 200 unless set, none if
	// negative.
	RequestLog int

	// Address is the address at which Start serves the API; a free port of 127.0.0.1 unless
	// set.
	Address string
	// HTTP1Only keeps Start's API from offering HTTP/2.
	HTTP1Only bool
	// Certificate is what is wrong with the one that Start's API presents.
	Certificate Certificate
}

// Application is an API application: its token endpoint's credentials.
type Application struct{ ClientID, ClientSecret string }

// ApplicationHeader is the name of a request header that is not in the Mimecast API: a
// test puts the client ID in it that the request must be sent with. See
// [Counts.Misplaced].
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

// Simulator is one Mimecast with one account and one application or more. Its methods
// may be called at any time, also while it serves.
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

// New returns a simulator without listeners: see API, Blobs and
// Control, or Start.
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

// API serves the token endpoint and the API.
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

// dispatch is a request's way through a gateway: its route, its token, what the
// application may do, how often; then the function.
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

// admit checks what a gateway checks before the function runs, and responds if it
// rejects the request.
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

// Forbid makes every path under one of the prefixes respond with 403, as it does for
// an application that lacks the product. Without a prefix nothing is forbidden.
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

// SetCredentials replaces those of the application of [Options.ClientID], as when its key was regenerated.
// What that does to live tokens is not documented; here they live on.
func (s *Simulator) SetCredentials(id, secret string) { s.issuer.setCredentials(id, secret) }

// SetApplication adds an application or replaces its secret; without a secret it removes
// the application. Its live tokens live on.
func (s *Simulator) SetApplication(a Application) { s.issuer.setApplication(a) }

// SetTokenTTL sets how long tokens live that are issued from now on.
func (s *Simulator) SetTokenTTL(ttl time.Duration) { s.issuer.setTTL(ttl) }

// RevokeTokens makes the tokens of the applications worthless that were issued so far;
// those of all applications if none is named. Applications go by their client IDs.
func (s *Simulator) RevokeTokens(applications ...string) { s.issuer.revoke(applications) }
