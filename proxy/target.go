package proxy

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"
)

// setTarget points the outbound request at the upstream, with the client's path and
// query byte for byte.
func setTarget(out *http.Request, upstream *url.URL, in *http.Request) {
	out.URL = Target(upstream, originForm(in.RequestURI))
}

// Target returns the URL of a path, with its query if there is one, at the
// upstream. A URL that was parsed and printed again is not the same
// bytes, so the request target is taken as it came and handed on as an opaque
// part, which net/http sends as it is.
func Target(upstream *url.URL, target string) *url.URL {
	path, query, hasQuery := strings.Cut(target, "?")
	return &url.URL{
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

// rewriteLocation returns a Location that leads to the upstream as one that leads
// to the proxy, by the scheme and the host that the client called it by; any
// other as it is.
func rewriteLocation(location string, upstream *url.URL, client *http.Request) string {
	u, err := url.Parse(location)
	prefix := strings.TrimSuffix(upstream.EscapedPath(), "/")
	if err != nil || u.Host != "" && !sameHost(u, upstream) || u.Host == "" && (prefix == "" || u.Path == "") {
		return location
	}
	path, ok := strings.CutPrefix(u.EscapedPath(), prefix)
	if !ok || path != "" && path[0] != '/' {
		return location
	}
	// What follows the authority stays byte for byte.
	rest := location
	if u.Host != "" {
		_, rest, _ = strings.Cut(location, "//")
	}
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		i = len(rest)
	}
	scheme := "http://"
	if client.TLS != nil {
		scheme = "https://"
	}
	return scheme + client.Host + strings.TrimPrefix(rest[i:], prefix)
}

// sameHost reports whether u leads to the upstream's host, in plain HTTP or in
// TLS: at the upstream's port, or each at its scheme's own. A reference without
// a scheme takes the upstream's.
func sameHost(u, upstream *url.URL) bool {
	own, its := defaultPort(u.Scheme), defaultPort(upstream.Scheme)
	if u.Scheme == "" {
		own = its
	}
	p, q := cmp.Or(u.Port(), own), cmp.Or(upstream.Port(), its)
	return own != "" && strings.EqualFold(u.Hostname(), upstream.Hostname()) && (p == q || p == own && q == its)
}

// defaultPort returns the port of http or https; empty for another scheme.
func defaultPort(scheme string) string {
	return map[string]string{"https": "443", "http": "80"}[scheme]
}
