package proxy

import (
	"net/http"
	"strings"
)

// The list has the headers to strip, not those that pass: clients send their own, for
// correlation and for Mimecast's support, and a list of those would silently break
// them. It has what some server, framework or gateway takes for a credential, for
// another method, path or host than the checked one, or for the client's identity.
// Such headers come in families, and are stripped as such.
//
// Names are compared in lower case and with "_" as "-", since servers that hand
// headers on as variables (CGI and its heirs) cannot tell these apart.

// strippedNames are headers that a client may not send on.
var strippedNames = setOf(
	// credentials: the client's own, API 1.0's, the proxy's
	"authorization", "cookie", "cookie2", "x-access-token", "x-auth-token", "x-authorization", "x-mc-app-id", "x-mc-date", "x-mc-req-id",
	"x-serverless-authorization",
	// hop by hop: ReverseProxy would put Upgrade back; the client has its 100
	// Continue, or will get it
	"connection", "expect", "http2-settings", "keep-alive", "upgrade",
	// another method, path, host or scheme
	"base-url", "front-end-https", "request-uri", "x-accel-redirect", "x-backend-host", "x-host", "x-host-override", "x-method", "x-method-override",
	"x-override-method", "x-override-url", "x-path-override", "x-protocol", "x-scheme", "x-sendfile", "x-uri", "x-url", "x-url-scheme",
	// who the client is
	"client-ip", "forwarded", "real-ip", "ssl-client-cert", "ssl-client-verify", "wl-proxy-client-ip", "wl-proxy-ssl", "x-client-cert",
	"x-client-dn", "x-client-host", "x-client-ip", "x-client-verify", "x-ip", "x-proxyuser-ip", "x-source-ip", "x-user-ip",
)

// strippedFamilies are the beginnings of such names, up to the first "-" or the
// second.
var strippedFamilies = setOf(
	"akamai", "cdn", "cf", "fastly", "incap", "proxy", "remote", "true",
	"x-akamai", "x-amz", "x-amzn", "x-appengine", "x-arr", "x-authenticated", "x-azure", "x-cluster", "x-envoy", "x-forward", "x-forwarded",
	"x-goog", "x-google", "x-http", "x-iap", "x-nginx", "x-original", "x-originating", "x-proxy", "x-real", "x-remote", "x-rewrite", "x-ssl", "x-tls", "x-true",
)

func setOf(names ...string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

func strip(h http.Header) {
	for name := range h {
		if isStripped(name) {
			delete(h, name)
		}
	}
}

// maxStrippedName is longer than each name of the lists.
const maxStrippedName = 64

func isStripped(name string) bool {
	var buf [maxStrippedName]byte
	n := min(len(name), len(buf))
	hyphens := 0
	for i := range n {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '_':
			c = '-'
		}
		if c == '-' {
			if hyphens++; hyphens <= 2 && strippedFamilies[string(buf[:i])] {
				return true
			}
		}
		buf[i] = c
	}
	return n == len(name) && (strippedNames[string(buf[:n])] || strippedFamilies[string(buf[:n])])
}

// withheld are the headers of a response that a client does not get: those that would
// lead it past the proxy, those that browsers store or obey, and those that only the
// proxy sends.
var withheld = []string{
	"Alt-Svc",
	"Set-Cookie",
	"Access-Control-Allow-Origin",
	"Access-Control-Allow-Credentials",
	"Access-Control-Allow-Headers",
	"Access-Control-Allow-Methods",
	"Access-Control-Allow-Private-Network",
	"Access-Control-Expose-Headers",
	"Access-Control-Max-Age",
	"X-Mimecast-Proxy-Error",
	"X-Mimecast-Proxy-Api1",
	"Proxy-Status",
}

func withhold(h http.Header) {
	for _, name := range withheld {
		delete(h, name)
	}
}

// hideIdempotency spells the idempotency keys as net/http does not. It takes them as
// permission to resend a request, even a write that the upstream has seen, and
// Mimecast makes no such promise.
func hideIdempotency(h http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if v, ok := h[name]; ok {
			delete(h, name)
			h[strings.ToLower(name)] = v
		}
	}
}
