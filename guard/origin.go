package guard

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

var defaultPorts = map[string]string{"http": ":80", "https": ":443"}

// originSet reads the allowed origins, as browsers write them: in lower case and
// without a default port.
func originSet(allowed []string) (map[string]bool, error) {
	set := make(map[string]bool, len(allowed))
	for _, origin := range allowed {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(origin, "*") || !strings.EqualFold(u.Scheme+"://"+u.Host, origin) {
			return nil, fmt.Errorf("%q is not an origin; write each one as https://tool.example", origin)
		}
		set[strings.ToLower(u.Scheme+"://"+strings.TrimSuffix(u.Host, defaultPorts[u.Scheme]))] = true
	}
	return set, nil
}

// checkOrigin rejects a request that a browser marks as coming from another site
// (Fetch standard, "Origin"; Fetch Metadata, "Sec-Fetch-Site"), GET included: it would
// use the account's identity, so there is no safe method. It returns the page's
// origin if that is an allowed one.
func (g *Guard) checkOrigin(r *http.Request) (page string, _ *problem.Problem) {
	origins, sites := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	switch {
	case len(origins) == 0 && len(sites) == 0:
		return "", nil // no browser, or one that marks nothing: see checkHost
	case len(origins) > 1 || len(sites) > 1:
		return "", foreignOrigin("several origins")
	case len(origins) == 1 && g.origins[origins[0]]:
		return origins[0], nil
	case len(origins) == 1 && !g.isOwn(origins[0], r):
		return "", foreignOrigin(fmt.Sprintf("the origin %.200q", origins[0]))
	case len(sites) == 1 && sites[0] != "same-origin" && sites[0] != "none":
		// "none" means that a person typed the address.
		return "", foreignOrigin("another site")
	}
	return "", nil
}

func foreignOrigin(source string) *problem.Problem {
	return problem.New(event.OriginNotAllowed, "A web page of %s sent this request. To let it use the account, add its origin to PROXY_ALLOWED_ORIGINS.", source)
}

// isOwn reports whether an origin is the address that the request was sent to, under
// a name that is surely the proxy's: if any host is accepted, a page that was rebound
// to this address would otherwise pass as the proxy's.
func (g *Guard) isOwn(origin string, r *http.Request) bool {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	authority, ok := strings.CutPrefix(origin, scheme)
	return ok && strings.EqualFold(authority, r.Host) && (g.hosts.knows(r.Host) || g.intercepted(r))
}
