package guard

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// WrapAdmin returns a handler that passes requests of this machine alone to next:
// those over loopback or a unix socket that no relay has forwarded, with a Host that
// is surely the proxy's, and from no web page but its own. Neither "*" among the
// hosts nor an allowed origin opens it.
func (g *Guard) WrapAdmin(next http.Handler) http.Handler {
	local := &Guard{hosts: hosts{names: g.hosts.names}, trace: g.trace}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := local.checkLocal(r); p != nil {
			local.reject(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Guard) checkLocal(r *http.Request) *problem.Problem {
	socket := overSocket(r)
	if !socket && !overLoopback(r) {
		return problem.New(event.HostNotAllowed, "Only the proxy's machine can open this page. From elsewhere, use kubectl port-forward or an SSH tunnel.")
	}
	if name := relayHeader(r.Header); name != "" {
		return problem.New(event.HostNotAllowed, "Only the proxy's machine can open this page, and the header %s shows a relay. Use kubectl port-forward or an SSH tunnel.", name)
	}
	if !socket { // no browser opens one, and its clients make up a name
		if p := g.checkHost(r); p != nil {
			return p
		}
	}
	_, p := g.checkOrigin(r)
	if p != nil { // no setting opens it to a page
		p.Detail = "A web page of another origin sent this request. Open the status page by its own address, not through a link or a frame."
	}
	return p
}

// overLoopback reports whether a connection leads from 127.0.0.1 or ::1 to a loopback
// address, as those of kubectl port-forward and of programs on the machine do. Istio's
// inbound relay comes from 127.0.0.6, and a relay in the pod may go to the pod's address.
func overLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil || !at.Addr().Unmap().IsLoopback() {
		return false
	}
	from := peer.Addr().Unmap()
	return from == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || from == netip.IPv6Loopback()
}

// relayHeaders are headers, or their beginnings, that relays add to what they
// forward. X-Request-Id is not among them: clients send it too.
var relayHeaders = []string{
	"Forwarded", "Via", "X-Forwarded-", "X-Envoy-", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Original-", "X-Proxyuser-Ip",
	"True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip", "L5d-", "X-Istio-",
}

// relayHeader returns which of relayHeaders a request has; empty if none. Some relays
// write an underscore for a hyphen.
func relayHeader(h http.Header) string {
	for name := range h {
		canonical := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		for _, header := range relayHeaders {
			if canonical == header || strings.HasSuffix(header, "-") && strings.HasPrefix(canonical, header) {
				return header
			}
		}
	}
	return ""
}

// overSocket reports whether a request came over a unix socket. The listener's
// address decides, since the peer chooses the peer's.
func overSocket(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addr.Network() == "unix"
}
