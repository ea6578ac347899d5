package guard

import (
	"net"
	"net/http"
	"net/netip"

	"mimecast-proxy/problem"
)

// WrapAdmin returns next for this machine alone: for peers on loopback or on a
// unix socket, by a name that is surely the proxy's, and for no page but its
// own. Neither "*" among the hosts nor an allowed origin opens it.
func (g *Guard) WrapAdmin(next http.Handler) http.Handler {
	local := &Guard{hosts: hosts{names: g.hosts.names}, trace: g.trace}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := local.judgeLocal(r); p != nil {
			local.refuse(w, r, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Guard) judgeLocal(r *http.Request) *problem.Problem {
	socket := overSocket(r)
	if !socket && !isLoopbackPeer(r.RemoteAddr) {
		return problem.New(problem.HostNotAllowed, "This page is for the machine that the proxy runs on. From elsewhere use kubectl port-forward or an SSH tunnel.")
	}
	if !socket { // no browser opens one, and its clients make up a name
		if p := g.judgeHost(r); p != nil {
			return p
		}
	}
	_, p := g.judgeOrigin(r)
	return p
}

func isLoopbackPeer(remote string) bool {
	peer, err := netip.ParseAddrPort(remote)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// overSocket reports whether a request came over a unix socket. The listener
// says so; the peer's own address is the peer's to choose.
func overSocket(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addr.Network() == "unix"
}
