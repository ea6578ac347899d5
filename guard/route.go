package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

// routes are the allowed ones; http.ServeMux matches them. Patterns with a method
// and patterns without one have a mux each: ServeMux sees a conflict between GET /
// and /siem/, since it could not choose, but here both allow.
type routes struct {
	withMethod, anyMethod *http.ServeMux
	exceptions            []string // to mimecast.EveryGET
}

// allowedRoute marks a route in a mux, in contrast to the redirects and errors that
// ServeMux generates.
type allowedRoute struct{}

func (allowedRoute) ServeHTTP(http.ResponseWriter, *http.Request) {}

// ParseRoutes returns the patterns of http.ServeMux that the items stand for: presets
// are expanded, and each pattern is there once. The error names every item that cannot
// be used.
func ParseRoutes(items []string) ([]string, error) {
	patterns, errs := expandPresets(items)
	_, err := register(patterns)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return patterns, nil
}

func newRoutes(items []string) (*routes, error) {
	patterns, err := ParseRoutes(items)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	r, err := register(patterns)
	if err == nil {
		r.exceptions = mimecast.Exceptions(items)
	}
	return r, err
}

// isException reports whether a path might be read as one that a preset leaves out.
func (rs *routes) isException(t target) bool {
	return t.anyInterpretation(func(path string) bool {
		return slices.ContainsFunc(rs.exceptions, func(part string) bool { return strings.Contains(path+"/", part) })
	})
}

// expandPresets replaces presets by their patterns and leaves out what cannot be used.
func expandPresets(items []string) (patterns []string, errs []error) {
	for _, item := range items {
		expanded := []string{strings.Join(strings.Fields(item), " ")}
		if strings.HasPrefix(item, "@") {
			var ok bool
			if expanded, ok = mimecast.Presets[item]; !ok {
				errs = append(errs, fmt.Errorf("%q is not a preset; use one of %s", item, strings.Join(slices.Sorted(maps.Keys(mimecast.Presets)), ", ")))
			}
		}
		for _, pattern := range expanded {
			if err := checkPattern(pattern); err != nil {
				errs = append(errs, err)
			} else if !slices.Contains(patterns, pattern) {
				patterns = append(patterns, pattern)
			}
		}
	}
	return patterns, errs
}

// checkPattern rejects a pattern that ServeMux would take but that could never match
// here, or not as the operator means it.
func checkPattern(pattern string) error {
	method, p, ok := strings.Cut(pattern, " ")
	if !ok {
		method, p = "", pattern
	}
	rooted := strings.HasPrefix(p, "/")
	switch {
	case !rooted && strings.Contains(p, "/"):
		return fmt.Errorf("%q names a host; begin the path with a slash, such as GET /siem/", pattern)
	case !rooted:
		return fmt.Errorf("%q is not a route; write an optional method and a path that begins with a slash, such as GET /siem/", pattern)
	case strings.Contains(p, " "):
		return fmt.Errorf("%q has a space in its path; put a comma or a line break between routes", pattern)
	case method != strings.ToUpper(method):
		return fmt.Errorf("%q: write the method in capitals", pattern)
	case strings.ContainsAny(p, `%\?#;`):
		return fmt.Errorf("%q: write the path without escapes, parameters and query", pattern)
	case strings.Contains(p, "//") || p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/"):
		return fmt.Errorf("%q can match nothing: its path has doubled slashes or dot segments", pattern)
	}
	return nil
}

func register(patterns []string) (*routes, error) {
	r := &routes{withMethod: http.NewServeMux(), anyMethod: http.NewServeMux()}
	var errs []error
	for i, pattern := range patterns {
		mux := r.withMethod
		if !strings.Contains(pattern, " ") {
			mux = r.anyMethod
		}
		if err := tryHandle(mux, pattern); err != nil {
			errs = append(errs, describeConflict(pattern, patterns[:i], err))
		}
	}
	return r, errors.Join(errs...)
}

// tryHandle registers a pattern. ServeMux panics if it is invalid or in conflict.
func tryHandle(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if why := recover(); why != nil {
			err = fmt.Errorf("%v", why)
		}
	}()
	mux.Handle(pattern, allowedRoute{})
	return nil
}

// describeConflict explains why a pattern cannot be registered, in the operator's
// terms: ServeMux's text for a conflict names lines of this program.
func describeConflict(pattern string, before []string, err error) error {
	for _, other := range before {
		mux := http.NewServeMux()
		if tryHandle(mux, other) == nil && tryHandle(http.NewServeMux(), pattern) == nil && tryHandle(mux, pattern) != nil {
			return fmt.Errorf("%q and %q overlap, and neither is narrower; leave one out, or write one that covers both", other, pattern)
		}
	}
	return fmt.Errorf("%q is not a pattern of http.ServeMux: %w", pattern, err)
}

// checkRoute rejects a request that the policy's routes or the client's do not allow.
func (g *Guard) checkRoute(r *http.Request, t target, c *client) *problem.Problem {
	t, p := g.routeTarget(t)
	var pattern, own string
	if p == nil {
		pattern, p = g.routes.check(r, t, "")
	}
	if p == nil {
		own, p = c.routes.check(r, t, c.name)
		pattern = cmp.Or(pattern, own)
	}
	switch {
	case p == nil && pattern != "" && g.trace.Route != nil:
		g.trace.Route(r.Context(), pattern)
	case p != nil && g.reportOnly:
		g.reportDenied(r, p, true)
		return nil
	}
	return p
}

// routeTarget returns the target that routes are checked for.
func (g *Guard) routeTarget(t target) (target, *problem.Problem) {
	if g.routeAs == nil || !t.anyInterpretation(func(path string) bool { return g.routeAs(path) != "" }) {
		return t, nil
	}
	if t.decodings != nil {
		return t, badTarget("The path is ambiguous: it could be one of the proxy's own paths. Send it as the proxy wrote it.")
	}
	return target{path: cmp.Or(g.routeAs(t.path), t.path)}, nil
}

// overrideHeaders are headers that make some servers use another method or path than
// those of the request, which the routes have not checked.
var overrideHeaders = []string{"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url"}

// check returns the pattern that allows a request, which must be the same for every
// interpretation of its path; empty if there are no routes. A rejection says that the
// routes are those of the client with that name; of PROXY_ALLOW, if it is empty.
func (rs *routes) check(r *http.Request, t target, client string) (string, *problem.Problem) {
	if rs == nil {
		return "", nil
	}
	reject := func(code event.Code, detail string, args ...any) (string, *problem.Problem) {
		setting := "PROXY_ALLOW"
		if client != "" {
			setting = "The allow of client " + client + " in PROXY_CLIENTS_FILE"
		}
		return "", problem.New(code, setting+" "+detail, args...)
	}
	for _, name := range overrideHeaders {
		if len(r.Header[name]) > 0 {
			return reject(event.RouteNotAllowed, "limits routes, so the header %s is not allowed: it could change the route. Leave it out.", name)
		}
	}
	pattern, same := rs.match(r, t)
	if !same {
		return reject(event.BadRequestTarget, "matches the path differently, depending on how it is decoded. Send it without escaped slashes, backslashes, doubled slashes and parameters.")
	}
	if pattern == "" || pattern == mimecast.EveryGET && rs.isException(t) {
		return reject(event.RouteNotAllowed, "does not let %s %.200s pass.", r.Method, t.path)
	}
	return pattern, nil
}

// match returns the pattern that a request matches; empty if none. It reports whether
// every interpretation of the path matches the same one.
func (rs *routes) match(r *http.Request, t target) (pattern string, same bool) {
	if t.decodings == nil {
		if r.URL.Path != t.path || r.URL.RawPath != "" {
			r = requestFor(r.Method, literalURL(t.path))
		}
		return rs.lookup(r), true
	}
	pattern = rs.lookup(requestFor(r.Method, escapedURL(t.path)))
	toURL := escapedURL // the first still has its escapes; in the others a % is a character
	for _, text := range t.decodings {
		if rs.lookup(requestFor(r.Method, toURL(text))) != pattern || rs.lookup(requestFor(r.Method, toURL(lenientPath(text)))) != pattern {
			return "", false
		}
		toURL = literalURL
	}
	return pattern, true
}

func literalURL(path string) *url.URL { return &url.URL{Path: path} }

func requestFor(method string, u *url.URL) *http.Request {
	return &http.Request{Method: method, URL: u}
}

// escapedURL returns the URL of a path that is split first and whose segments are
// decoded then, as in RFC 3986, section 2.4, and as ServeMux does. A character that is
// not allowed would make url.URL escape the whole path again, so each is escaped here.
func escapedURL(raw string) *url.URL {
	var encoded strings.Builder
	for i := range len(raw) {
		if b := raw[i]; isAlnum(b) || strings.IndexByte("/%-._~!$&'()*+,;=:@[]", b) >= 0 {
			encoded.WriteByte(b)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", b)
		}
	}
	return &url.URL{Path: unescape(encoded.String()), RawPath: encoded.String()}
}

// lookup returns the pattern that ServeMux finds. A path that ServeMux would
// send elsewhere, such as one with doubled slashes, is not allowed.
func (rs *routes) lookup(r *http.Request) string {
	if h, pattern := rs.withMethod.Handler(r); h == (allowedRoute{}) {
		return pattern
	}
	if h, pattern := rs.anyMethod.Handler(r); h == (allowedRoute{}) {
		return pattern
	}
	return ""
}
