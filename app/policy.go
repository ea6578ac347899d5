package app

import (
	"net/url"
	"slices"
	"strings"

	"mimecast-proxy/config"
)

// hosts returns the names that a request may call the proxy by.
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
		// Who can open a socket is for its mode to say, and a browser can't. Beside
		// a port, any name would let web pages use that.
		names = append(names, "*")
	}
	return names
}

// tokenPath returns the path by which a client's request to the base URL would reach the
// token endpoint; empty if there is none.
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

// authority returns host and port, the scheme's own one included.
func authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") + ":" + port
}
