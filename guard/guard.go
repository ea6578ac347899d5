// Package guard is the access control of the data port and the status page: an
// [http.Handler] that checks each request's target, Host, browser origin, client
// and route, and rejects it or passes it on.
//
// A proxy that adds a credential to every request is a confused deputy. So it is
// closed by default, and each rejection names the setting that opens it. A rejected
// request never reaches Mimecast.
//
// An ambiguous request is rejected and never repaired, since the next reader may
// repair it in another way.
package guard

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// Policy is the access control list. The zero value has no client, so it rejects every
// request. With a zero [Client], programs that use a loopback name may make every request,
// and web pages none.
type Policy struct {
	// Hosts are the names that requests may call the proxy by, without port;
	// "*" for any. Those of loopback are always among them.
	Hosts []string
	// Origins are the browser origins that may call, such as
	// https://tool.example.
	Origins []string
	// Clients are who may call. See also [Guard.SetClients].
	Clients []Client
	// Routes are the only ones that pass, for each client: patterns of http.ServeMux,
	// and presets such as @read; none: every route passes.
	Routes []string
	// ReportOnly lets requests pass that Routes or the client's would reject, and
	// reports them.
	ReportOnly bool
	// RouteAs returns the path that routes are checked for in place of a request's, such as
	// that of the listing of batch files for the files; empty to check the request's path.
	// It gets every interpretation of a path, in lower case too. A path with several
	// interpretations of which one is replaced is rejected. nil replaces none.
	RouteAs func(path string) string
	// TokenStub makes the guard respond to POST /oauth/token with a token that only
	// the proxy knows; else such a request is rejected.
	TokenStub bool
	// MaxHeaderFields is the most header fields a request may have; 0: no limit.
	MaxHeaderFields int
	// MaxRequests is the most in-flight requests; 0: no limit.
	MaxRequests int
	// Tunnel returns the Proxy-Authorization that a request came with through the
	// forward proxy, or that its tunnel was opened with; ok is false if it came another
	// way. It identifies the client in place of the request's own headers. The forward
	// proxy has checked the Host. nil: no request comes that way.
	Tunnel func(*http.Request) (authorization []string, ok bool)
	// TunnelPassword says that the forward proxy asks for its own password and not for
	// a key: its requests are those of the client without a name.
	TunnelPassword bool
	// Trace reports decisions; the zero value reports none.
	Trace Trace
}

// Trace reports what the guard decides. Each func may be nil, is called by many
// goroutines at once, and must not block.
type Trace struct {
	// Denied gets the code of a rejection; passed is true if ReportOnly let the
	// request pass.
	Denied func(ctx context.Context, code event.Code, passed bool)
	// Limit reports, before Denied, the setting whose limit a request exceeds, and its owner
	// as in [problem.Problem].
	Limit func(ctx context.Context, setting string, owner event.Component)
	// Client gets the names of a request's client and of its account, as soon as they
	// are known. What is rejected later is theirs, too.
	Client func(ctx context.Context, client, account string)
	// Route gets the pattern that matches a request that passes: of Policy.Routes or, if
	// there are none, of the client's.
	Route func(ctx context.Context, pattern string)
}

// Guard checks requests against a [Policy]. Make it with [New]. Its methods may be
// called by several goroutines at once.
type Guard struct {
	slots           slots
	uploads         uploads
	unauthenticated slots // token requests whose body is read before a key is known
	hosts           hosts
	origins         map[string]bool
	roster          atomic.Pointer[roster]
	routes          *routes // nil: everything
	reportOnly      bool
	routeAs         func(path string) string // nil: none
	tokenStub       bool
	tunnel          func(*http.Request) (authorization []string, ok bool)
	tunnelPassword  bool
	maxHeaderFields int // 0: no bound
	trace           Trace

	setting sync.Mutex               // guards the rest; no request takes it
	taken   map[string]*atomic.Int64 // slots by the client's name
}

// New returns a guard. The error names an origin, every route, or every client that
// cannot be used.
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
		slots:           newSlots(int64(p.MaxRequests)),
		unauthenticated: newSlots(unauthenticatedSlots(p.MaxRequests)),
		hosts:           newHosts(p.Hosts),
		origins:         origins,
		routes:          routes,
		reportOnly:      p.ReportOnly,
		tokenStub:       p.TokenStub,
		maxHeaderFields: p.MaxHeaderFields,
		routeAs:         p.RouteAs,
		tunnel:          p.Tunnel,
		tunnelPassword:  p.TunnelPassword,
		trace:           p.Trace,
	}
	if err := g.SetClients(p.Clients); err != nil {
		return nil, err
	}
	return g, nil
}

// InFlight returns the number of in-flight requests on the data port.
func (g *Guard) InFlight() int { return int(g.slots.taken.Load()) }

// Wrap returns the handler of the data port: it rejects a request with an error
// response, or passes it to next with its account and its client's name in the context.
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
	if !g.slots.take(g.displace) {
		g.reject(w, r, g.slots.tooBusy())
		return true
	}
	defer g.slots.release() // a panic, as of an aborted response, goes on
	r, done := g.uploads.add(w, r)
	defer done()
	return g.serve(w, r, next)
}

// displace ends a silent upload, of any client, and reports whether there is one.
func (g *Guard) displace() bool {
	return g.uploads.displace(nil, tooBusy("PROXY_MAX_REQUESTS", "The proxy was full, and no part of the request body arrived. Resend the request, or raise PROXY_MAX_REQUESTS.")) != nil
}

// serve makes the checks, in the contract's order, and reports whether it rejected
// the request. Until the origin is checked the client may be a web page, which must
// learn nothing.
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
		defer cors.addHeaders() // a response may have no explicit status and no body
		w = cors
		if isPreflight(r) {
			servePreflight(w, r)
			return false
		}
	}
	if g.isTokenEndpoint(t) {
		return g.serveTokenStub(w, r, t)
	}
	c, p := g.checkCaller(r, t)
	if p != nil {
		g.reject(w, r, p)
		return true
	}
	return c.serve(g, w, r, next)
}

// checkCaller makes the checks that follow those against hostile web pages: key,
// upgrade, method and route. It returns the client if all of them pass.
func (g *Guard) checkCaller(r *http.Request, t target) (*client, *problem.Problem) {
	ro := g.roster.Load()
	c := ro.client(g, r)
	if c == nil {
		return nil, ro.keyRequired(g, r)
	}
	g.reportClient(r, c)
	p := checkUpgrade(r)
	if p == nil && r.Method == http.MethodTrace {
		p = problem.New(event.RouteNotAllowed, "TRACE is not allowed: its response would show the token. Use another method.")
	}
	if p == nil {
		p = g.checkRoute(r, t, c)
	}
	return c, p
}

// bodyTimeout is how long a client may take to send a body before its key is
// known.
const bodyTimeout = 10 * time.Second

// setBodyDeadline bounds how long the rest of a body may take.
func setBodyDeadline(w http.ResponseWriter) {
	// Every writer of net/http has deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
}

// maxShortBody is the largest body, in bytes, that is read before a rejection is sent.
const maxShortBody = 64 << 10

// hasLongBody reports whether the rest of a rejected request's body is discarded after
// the response. A short one is read by net/http before it sends the response, so
// that the connection can be used again, unless the connection ends with the
// response. HTTP/2 ends the stream alone.
func hasLongBody(r *http.Request) bool {
	return r.ProtoMajor == 1 && r.ContentLength != 0 &&
		(r.ContentLength < 0 || r.ContentLength > maxShortBody || r.Close || !r.ProtoAtLeast(1, 1) || r.Header.Get("Expect") != "")
}

// reject sends the error response. If the body is long, the caller discards the
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
	if p.Limit != "" && g.trace.Limit != nil {
		g.trace.Limit(r.Context(), p.Limit, p.LimitOwner)
	}
	if g.trace.Denied != nil {
		g.trace.Denied(r.Context(), p.Code, passed)
	}
}

func (g *Guard) reportClient(r *http.Request, c *client) {
	if g.trace.Client != nil {
		g.trace.Client(r.Context(), c.name, c.account.Name)
	}
}
