package quota

import (
	"net/http"
	"net/url"
	"path"

	"mimecast-proxy/account"
)

// functionKey is what Mimecast counts by: each account has its own quota of each function.
type functionKey struct {
	account *account.Account
	path    string // decoded and clean
}

// functionOf returns which function a request calls.
func functionOf(req *http.Request) functionKey {
	return functionKey{account.Of(req.Context()), cleanPath(req.URL.Opaque)}
}

// cleanPath returns the one path of all spellings that reach the same function: a client
// must not get a new quota by an escape or a slash. Guard has rejected what is ambiguous.
func cleanPath(raw string) string {
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		decoded = raw
	}
	if decoded == "" {
		return "/"
	}
	clean := path.Clean(decoded)
	return clean[:min(len(clean), maxPath)]
}
