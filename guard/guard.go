// Package guard decides whether a request may pass: its target, the name it
// calls the proxy by, the browser page it comes from, its key, its route.
//
// A proxy that adds a credential to whatever it is asked is a confused deputy.
// So it is closed until told otherwise, and each refusal says in one line how
// to open it. A refusal costs Mimecast nothing: not a byte goes upstream.
//
// What is ambiguous is refused and never repaired, since whoever reads it next
// may repair it in another way.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

// Policy says who may ask for what. The zero value lets whoever calls the proxy
// by a loopback name ask for everything, web pages apart.
type Policy struct {
	// Hosts are the names that requests may call the proxy by, without port;
	// "*" for any. Those of loopback are always among them.
	Hosts []string
	// Origins are the browser origins that may call, such as
	// https://tool.example.
	Origins []string
	// Keys are those of which every request must carry one. Where there is none,
	// none is wanted. See also [Guard.SetKeys].
	Keys []secret.Text
	// Routes are the only ones to let through: patterns of http.ServeMux, and
	// presets such as @read. None means everything.
	Routes []string
	// ReportOnly lets pass what Routes would refuse, and reports it.
	ReportOnly bool
	// TokenStub answers POST /oauth/token here; else such a request is refused.
	TokenStub bool
	// TokenPath is the path by which a request would reach Mimecast's token
	// endpoint, unescaped, where that is another than /oauth/token; else empty. It
	// is refused too.
	TokenPath string
	// MaxHeaderFields bounds the header fields of a request; 0 does not.
	MaxHeaderFields int
	// MaxRequests bounds the requests in flight; 0 does not.
	MaxRequests int
	// Account is the one that requests use.
	Account *account.Account
	Trace   Trace
}

// Trace is told what the guard decides. Each func may be nil and must not
// block.
type Trace struct {
	// Denied gets the problem's code; passed says that the request went on all
	// the same.
	Denied func(ctx context.Context, code event.Code, passed bool)
	// Route gets the pattern of Routes that let a request pass.
	Route func(ctx context.Context, pattern string)
}

// Guard holds a policy.
type Guard struct {
	slots      slots
	uploads    uploads
	unproven   slots // token requests whose body is read before anything is proved
	hosts      hosts
	origins    map[string]bool
	keys       atomic.Pointer[keyring] // nil: none is asked for
	routes     *routes                 // nil: everything
	reportOnly bool
	tokenStub  bool
	tokenPath  string // in lower case

	maxHeaderFields int // 0: no bound
	account         *account.Account
	trace           Trace
}

// New returns a guard. The error names every route that cannot be used.
func New(p Policy) (*Guard, error) {
	origins, err := originSet(p.Origins)
	if err != nil {
		return nil, fmt.Errorf("reading the allowed origins: %w", err)
	}
	routes, err := newRoutes(p.Routes)
	if err != nil {
		return nil, err
	}
	g := &Guard{
		slots:           slots{max: int64(p.MaxRequests)},
		unproven:        slots{max: unprovenSlots(p.MaxRequests)},
		hosts:           newHosts(p.Hosts),
		origins:         origins,
		routes:          routes,
		reportOnly:      p.ReportOnly,
		tokenStub:       p.TokenStub,
		maxHeaderFields: p.MaxHeaderFields,
		account:         p.Account,
		trace:           p.Trace,
	}
	if p.TokenPath != "" {
		g.tokenPath = strings.ToLower(path.Clean("/" + p.TokenPath))
	}
	g.SetKeys(p.Keys)
	return g, nil
}

// InFlight returns how many requests are in flight.
func (g *Guard) InFlight() int { return int(g.slots.taken.Load()) }

// Wrap returns next behind the guard: the data port.
func (g *Guard) Wrap(next http.Handler) http.Handler { return &dataPort{g, next} }

type dataPort struct {
	guard *Guard
	next  http.Handler
}

func (d *dataPort) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.guard.serveInSlot(w, r, d.next) && hasLongBody(r) {
		problem.Discard(w, r.Body) // without a slot: a rejected upload holds none
	}
}

// serveInSlot serves a request that finds a slot, and reports whether it was
// rejected.
func (g *Guard) serveInSlot(w http.ResponseWriter, r *http.Request, next http.Handler) (rejected bool) {
	if !g.slots.take(g.uploads.displace) {
		g.reject(w, r, g.slots.tooBusy())
		return true
	}
	defer g.slots.release() // a panic, as of an aborted answer, goes on its way
	r, done := g.uploads.add(w, r)
	defer done()
	return g.serve(w, r, next)
}

// serve asks the questions, in the contract's order, and reports whether it rejected
// the request. Until the origin is judged a web page may be asking, which must learn
// nothing.
func (g *Guard) serve(w http.ResponseWriter, r *http.Request, next http.Handler) (rejected bool) {
	t, p := g.parseTarget(r)
	if p == nil {
		p = g.checkHeaders(r)
	}
	if p == nil {
		p = g.checkHost(r)
	}
	page := ""
	if p == nil {
		page, p = g.checkOrigin(r)
	}
	if p != nil {
		g.reject(w, r, p)
		return true
	}
	if page != "" {
		cors := &corsWriter{ResponseWriter: w, origin: page}
		defer cors.addHeaders() // an answer may do without a status and a body
		w = cors
		if isPreflight(r) {
			servePreflight(w, r)
			return false
		}
	}
	if g.isTokenEndpoint(t) {
		return g.serveTokenStub(w, r, t)
	}
	if p = g.checkCaller(r, t); p != nil {
		g.reject(w, r, p)
		return true
	}
	const client = "" // known by its address alone
	next.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), g.account, client)))
	return false
}

// checkCaller asks what is asked of every caller that is no hostile page.
func (g *Guard) checkCaller(r *http.Request, t target) *problem.Problem {
	p := g.checkKey(r)
	if p == nil {
		p = checkUpgrade(r)
	}
	if p == nil && r.Method == http.MethodTrace {
		p = problem.New(event.RouteNotAllowed, "TRACE is never passed on: its answer would show the token.")
	}
	if p == nil {
		p = g.checkRoute(r, t)
	}
	return p
}

// bodyTimeout is how long a client may take to send a body before it has proved
// that it may.
const bodyTimeout = 10 * time.Second

// setBodyDeadline bounds how long the rest of a body may take.
func setBodyDeadline(w http.ResponseWriter) {
	// A writer without deadlines is none of net/http's, and has its own.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
}

// maxShortBody is the largest body, in bytes, that is read before a rejection is sent.
const maxShortBody = 64 << 10

// hasLongBody reports whether the rest of a rejected request's body is discarded after
// the response. Another one, which is short, net/http reads before it sends the
// response, so that the connection can be used again; but not where the connection
// ends with the response. HTTP/2 ends the stream alone.
func hasLongBody(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ContentLength != 0 &&
		(r.ContentLength < 0 || r.ContentLength > maxShortBody || r.Close || !r.ProtoAtLeast(1, 1) || r.Header.Get("Expect") != "")
}

// reject sends the error response. Where the body is long, the caller discards the
// rest of it.
func (g *Guard) reject(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	g.reportDenied(r, p, false)
	switch {
	case hasLongBody(r):
		_ = http.NewResponseController(w).EnableFullDuplex() // a writer of net/http's can
		w.Header().Set("Connection", "close")
	case r.ContentLength != 0 && p.Code != event.BadRequestBody: // its time has begun
		setBodyDeadline(w)
	}
	if p.Code == event.APIKeyRequired {
		addChallenge(w.Header())
	}
	p.ServeHTTP(w, r)
}

func (g *Guard) reportDenied(r *http.Request, p *problem.Problem, passed bool) {
	if g.trace.Denied != nil {
		g.trace.Denied(r.Context(), p.Code, passed)
	}
}
