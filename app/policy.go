package app

import (
	"net/url"
	"slices"
	"strings"

	"mimecast-proxy/config"
)

// hosts returns the names that the guard accepts in a Host header.
func hosts(cfg config.Config) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, cfg.AllowedHosts...)
	sockets := 0
	listen := slices.Concat(cfg.Listen, cfg.TLSListen)
	for _, a := range listen {
		if a.Network == "unix" {
			sockets++
		} else if u, err := url.Parse("http://" + a.Address); err == nil && u.Hostname() != "" {
			names = append(names, u.Hostname())
		}
	}
	if sockets == len(listen) {
		// File modes protect Unix sockets, and browsers cannot open them. If the proxy
		// also listened on a port, * would let web pages use that port.
		names = append(names, "*")
	}
	return names
}

// tokenPath returns the path, in lower case, at which a client's request would reach the token
// endpoint; empty if the endpoint is not below the base URL.
func tokenPath(base, token *url.URL) string {
	if base.Scheme != token.Scheme || authority(base) != authority(token) {
		return ""
	}
	within := strings.ToLower(strings.TrimSuffix(base.Path, "/")) + "/"
	rest, ok := strings.CutPrefix("/"+strings.TrimPrefix(strings.ToLower(token.Path), "/")+"/", within)
	if !ok {
		return ""
	}
	return "/" + strings.TrimSuffix(rest, "/")
}

// authority returns the host and port of u, with the scheme's default port if u has none.
func authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") + ":" + port
}
