package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/secret"
)

// corporateProxy is the URL of a corporate proxy. Go's parser ignores values that it
// does not understand, or picks the wrong host from them. Traffic and the secret would
// then bypass the proxy or go to another host. So ambiguous values are invalid.
type corporateProxy struct{ url secret.Text }

// proxySchemes are the proxy schemes that net/http supports.
var proxySchemes = []string{"http", "https", "socks5", "socks5h"}

// UnmarshalText implements encoding.TextUnmarshaler. Errors do not show the value,
// which may contain a password.
func (p *corporateProxy) UnmarshalText(text []byte) error {
	value := string(text)
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		scheme, rest = "http", value
	}
	if strings.ContainsRune("\"'`", rune(value[0])) {
		return invalidHidden("begins with the quotation mark %q, which counts as part of it", value[:1])
	}
	if !slices.Contains(proxySchemes, strings.ToLower(scheme)) {
		if why := invalidCharacter(scheme); why != "" {
			return invalidHidden("%s", why)
		}
		return invalidHidden("has a scheme other than http, https, socks5 or socks5h")
	}
	user, host := "", rest
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, host = rest[:i], rest[i+1:]
	}
	host = strings.TrimSuffix(host, "/")
	if why := invalidCharacter(user); why != "" {
		return invalidHidden("has a user name or password that %s", why)
	}
	if name, port := splitPort(host); !isPort(host, port) || !isHost(name) {
		if why := invalidCharacter(host); why != "" {
			return invalidHidden("%s", why)
		}
		return invalidHidden("has no valid host, or no valid port")
	} else if !goReadsAs(value, name, port) {
		return invalidHidden("is not a valid proxy URL")
	}
	p.url = secret.New(value)
	return nil
}

// invalidHidden returns an error that does not show the value.
func invalidHidden(format string, args ...any) error {
	return invalidValue{hidden: true, reason: fmt.Sprintf(format, args...)}
}

// invalidCharacter describes the first character of a URL part that must be escaped;
// empty if there is none.
func invalidCharacter(part string) string {
	for i, r := range part {
		if r == '%' && !isEscape(part[i:]) {
			return "has a % that is not an escape; write it as %25"
		}
		if !strings.ContainsRune(userChars, r) {
			return fmt.Sprintf("has the character %q in it; write it as %s", r, url.PathEscape(string(r)))
		}
	}
	return ""
}

// userChars are the characters that a URL allows in user and password (RFC 3986,
// section 3.2.1), and @. The last @ ends the user part.
const userChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@%"

func isEscape(s string) bool {
	isHex := func(b byte) bool { return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f' }
	return len(s) > 2 && isHex(s[1]) && isHex(s[2])
}

func isHost(name string) bool {
	_, ok := hostName(name)
	return ok
}

// splitPort splits the host of a URL into name and port. An IPv6 address keeps its
// brackets.
func splitPort(host string) (name, port string) {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		return host[:i], host[i+1:]
	}
	return host, ""
}

// goReadsAs reports whether net/http reads value as the proxy at name and port.
func goReadsAs(value, name, port string) bool {
	forward := httpproxy.Config{HTTPSProxy: value}
	u, err := forward.ProxyFunc()(&url.URL{Scheme: "https", Host: "api.example"})
	want := name
	if port != "" {
		want = net.JoinHostPort(strings.Trim(name, "[]"), port)
	}
	return err == nil && u != nil && slices.Contains(proxySchemes, u.Scheme) && strings.EqualFold(u.Host, want)
}
