package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// aim points the outbound request at the upstream, with the client's path and
// query byte for byte. A URL that was parsed and printed again is not the same
// bytes, so the request target is taken as it came and handed on as an opaque
// part, which net/http sends as it is.
func aim(out *http.Request, upstream *url.URL, in *http.Request) {
	path, query, hasQuery := strings.Cut(originForm(in.RequestURI), "?")
	out.URL = &url.URL{
		Scheme:     upstream.Scheme,
		Host:       upstream.Host,
		Opaque:     strings.TrimSuffix(upstream.EscapedPath(), "/") + path,
		RawQuery:   query,
		ForceQuery: hasQuery,
	}
}

// originForm returns the path and query of a request target in origin form or
// in absolute form (RFC 9112, section 3.2).
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	_, rest, _ := strings.Cut(target, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest = rest[i:]
	} else {
		rest = ""
	}
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return rest
}

// back returns a Location that leads to the upstream as one that leads to the
// proxy, under the host that the client called it by; any other as it is.
func back(location string, upstream *url.URL, host string) string {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || !sameOrigin(u, upstream) {
		return location
	}
	prefix := strings.TrimSuffix(upstream.EscapedPath(), "/")
	path, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || path != "" && path[0] != '/' {
		return location
	}
	// What follows the authority stays byte for byte.
	_, rest, _ := strings.Cut(location, "//")
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		i = len(rest)
	}
	return "http://" + host + strings.TrimPrefix(rest[i:], prefix)
}

// sameOrigin reports whether u leads to the upstream. A reference without a
// scheme takes the upstream's.
func sameOrigin(u, upstream *url.URL) bool {
	return (u.Scheme == "" || u.Scheme == upstream.Scheme) &&
		strings.EqualFold(u.Hostname(), upstream.Hostname()) && port(u, upstream.Scheme) == port(upstream, upstream.Scheme)
}

func port(u *url.URL, scheme string) string {
	if p := u.Port(); p != "" {
		return p
	}
	if scheme == "https" {
		return "443"
	}
	return "80"
}
