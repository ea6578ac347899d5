package guard

import (
	"net/http"
	"net/netip"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// hosts are the names accepted in Host, in addition to the loopback names.
type hosts struct {
	names map[string]bool
	any   bool
}

// newHosts reads the accepted names. An unspecified address, such as one that is
// listened on, is left out: a browser can reach 0.0.0.0 from any page, and sends it
// no header that marks a web page.
func newHosts(accepted []string) hosts {
	h := hosts{names: make(map[string]bool, len(accepted))}
	for _, name := range accepted {
		if name == "*" {
			h.any = true
			continue
		}
		if ip, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
			if !ip.IsUnspecified() {
				h.names[ip.Unmap().String()] = true
			}
			continue
		}
		h.names[strings.ToLower(strings.TrimSuffix(name, "."))] = true
	}
	return h
}

// accepts reports whether a request with this authority is let through.
func (h hosts) accepts(authority string) bool { return h.any || h.knows(authority) }

// knows reports whether an authority is one of the proxy's own names. The port
// is ignored: a forwarded port is seldom the one listened on, and a page that was
// rebound to this address has the right one.
func (h hosts) knows(authority string) bool {
	name, ok := hostName(authority)
	return ok && (isLoopback(name) || h.names[name])
}

// checkHost is the defense against DNS rebinding: a page whose own name was made to
// point to this address sends that name, and its GET may have no other header that
// marks a browser. Names are matched whole; x.localhost is not localhost, since some
// systems ask the network's DNS for it.
func (g *Guard) checkHost(r *http.Request) *problem.Problem {
	if g.hosts.accepts(r.Host) || g.intercepted(r) {
		return nil
	}
	if r.Host == "" && !r.ProtoAtLeast(1, 1) {
		return nil // HTTP/1.0 may go without, and no browser speaks that
	}
	if _, ok := hostName(r.Host); !ok {
		return problem.New(event.HostNotAllowed, "The Host header names no host. Send the proxy's name or address.")
	}
	return problem.New(event.HostNotAllowed, "Host %q is not allowed. To allow it, add it to PROXY_ALLOWED_HOSTS.", r.Host)
}

// maxName is the longest name that DNS has.
const maxName = 253

// hostName returns the name or address in an authority, which is a host with or
// without a port (RFC 9110, section 7.2): in lower case, without brackets and
// without the dot that ends a full name. It takes no user and no junk.
func hostName(authority string) (string, bool) {
	if strings.HasPrefix(authority, "[") {
		return ipv6Name(authority[1:])
	}
	name, port, hasPort := strings.Cut(authority, ":")
	if hasPort && !isPort(port) || len(name) > maxName {
		return "", false
	}
	name = strings.TrimSuffix(name, ".")
	last := byte('.')
	for i := range len(name) {
		b := name[i]
		if !isAlnum(b) && b != '-' && b != '_' && (b != '.' || last == '.') {
			return "", false
		}
		last = b
	}
	return strings.ToLower(name), last != '.'
}

// ipv6Name reads what follows the bracket of an authority.
func ipv6Name(rest string) (string, bool) {
	address, port, ok := strings.Cut(rest, "]")
	if !ok || port != "" && (port[0] != ':' || !isPort(port[1:])) {
		return "", false
	}
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return "", false
	}
	return ip.Unmap().String(), true
}

func isPort(s string) bool {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > 1<<16 {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return s != "" && n < 1<<16
}

func isAlnum(b byte) bool {
	return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z'
}

// isLoopback reports whether a name is one of this machine alone. An address
// cannot be rebound, so every one of loopback will do.
func isLoopback(name string) bool {
	if c := name[0]; c != ':' && (c < '0' || c > '9') {
		return name == "localhost" // spares most names the parsing
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}
