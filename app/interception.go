package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/intercept"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
	"mimecast-proxy/server"
	"mimecast-proxy/telemetry"
)

// interception is the forward proxy of an instance, with its CA. The zero value has
// neither.
type interception struct {
	authority *intercept.Authority
	// baseHosts are the hosts of the accounts' base URLs at startup, which the CA's name
	// constraint permits.
	baseHosts []string
	proxy     *intercept.Proxy // nil: no forward proxy
	server    *server.Server   // of the forward proxy
	listeners []net.Listener
	// password replaces API keys for the forward proxy; zero: it does not.
	password secret.Text
}

// needsAuthority reports whether the configuration needs a CA to issue certificates.
func needsAuthority(cfg config.Config) bool {
	return len(cfg.InterceptListen) > 0 || len(cfg.TLSListen) > 0 && cfg.TLS.IsZero()
}

// newAuthority returns the CA for the configuration, new or from PROXY_INTERCEPT_CA_DIR.
func (s *instance) newAuthority() (*intercept.Authority, error) {
	cfg, names := s.cfg, mimecast.APIHosts()
	s.intercept.baseHosts = convert(s.accounts.list(), func(one *mimecastAccount) string { return one.baseURL.Hostname() })
	names = append(names, s.intercept.baseHosts...)
	if len(cfg.TLSListen) > 0 && cfg.TLS.IsZero() {
		names = slices.DeleteFunc(append(names, hosts(cfg)...), func(name string) bool { return name == "*" })
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if cfg.InterceptCADir == "" {
		return intercept.NewAuthority(names)
	}
	a, err := intercept.LoadAuthority(cfg.InterceptCADir, names)
	if err != nil {
		return nil, fmt.Errorf("PROXY_INTERCEPT_CA_DIR: %w", err)
	}
	return a, nil
}

// openInterception creates the CA and opens the forward proxy's listeners, as far as they are
// configured. h gets the requests to Mimecast.
func (s *instance) openInterception(ctx context.Context, p Env, h http.Handler) error {
	if !needsAuthority(s.cfg) {
		return nil
	}
	var err error
	if s.intercept.authority, err = s.newAuthority(); err != nil {
		return err
	}
	if why := s.intercept.authority.Renewed(); why != "" {
		s.tel.Logger().Warn("interception CA replaced", "folder", s.cfg.InterceptCADir, "reason", why, "detail", "Give its new certificate to the clients.")
	}
	for _, a := range s.cfg.InterceptListen {
		l, err := server.Listen(ctx, p.listen, "PROXY_INTERCEPT_LISTEN", a.Network, a.Address, s.cfg.SocketMode)
		if err != nil {
			return err
		}
		s.intercept.listeners = append(s.intercept.listeners, l)
	}
	if len(s.intercept.listeners) > 0 {
		limits := dataLimits(s.cfg)
		tunnels := min(s.cfg.MaxRequests, 2*limits.MaxPartial)
		limits.MaxConnections += 2 * tunnels
		trusted, err := roots(s.cfg.CA)
		if err != nil {
			return err
		}
		s.intercept.proxy = s.newForwardProxy(ctx, h, tunnels, trusted)
		s.intercept.server = s.newServer(ctx, s.intercept.proxy, limits)
	}
	return nil
}

func (s *instance) newForwardProxy(ctx context.Context, h http.Handler, tunnels int, trusted *x509.CertPool) *intercept.Proxy {
	o := intercept.Options{
		Authority: s.intercept.authority, Handler: h,
		Intercepted:  s.isIntercepted,
		Password:     s.intercept.password,
		MimecastOnly: slices.ContainsFunc(s.cfg.InterceptListen, func(a config.Address) bool { return !a.Loopback() }),
		Dial:         intercept.DialThrough(corporateProxy(s.cfg), trusted),
		Own:          s.ownAddresses,
		DialTimeout:  2 * s.cfg.DialTimeout,
		WriteTimeout: writeTimeout,
		MaxTunnels:   tunnels,
		Server: func(h http.Handler) *http.Server {
			return &http.Server{
				Handler: h, ErrorLog: s.tel.StdLog("debug"), MaxHeaderBytes: s.cfg.MaxHeaderBytes, HTTP2: server.HTTP2Config(),
				ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, BaseContext: func(net.Listener) context.Context { return ctx },
			}
		},
		ErrorLog: s.tel.StdLog("debug"),
		NewID:    s.tel.NewID,
		Trace:    intercept.Trace{TunnelDone: func(t intercept.Tunnel) { s.tel.TunnelDone(telemetry.Tunnel(t)) }},
	}
	if o.Password.IsZero() {
		o.Authorize = s.guard.AllowsTunnel
	}
	return intercept.New(o)
}

// isIntercepted reports whether requests to a host go to Mimecast. A base URL on this machine
// belongs to a simulator, and other servers may share its host.
func (s *instance) isIntercepted(host string) bool {
	return mimecast.IsAPIHost(host) || !isLoopback(host) && slices.Contains(s.intercept.baseHosts, host)
}

// isLoopback reports whether a host is localhost or a loopback address.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// ownAddresses returns the addresses that the proxy listens at. Tunnels to them are rejected.
func (s *instance) ownAddresses() []net.Addr {
	own := convert(s.dataListeners, func(l dataListener) net.Addr { return l.Addr() })
	if s.adminAt != nil {
		own = append(own, s.adminAt)
	}
	return own
}

// tunnelAuthorization implements the guard's Policy.Tunnel.
func tunnelAuthorization(r *http.Request) ([]string, bool) {
	return intercept.Authorization(r.Context())
}

// drainInterception drains the tunnels, with the delay and timeout of the data port. If any
// remain at the end, it calls abort, closes them and returns an error.
func (s *instance) drainInterception(ctx context.Context, abort func()) error {
	if s.intercept.proxy == nil {
		return nil
	}
	delay := time.NewTimer(s.cfg.ShutdownDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-ctx.Done():
	}
	bounded, release := context.WithTimeout(ctx, s.cfg.ShutdownTimeout)
	defer release()
	cutting, cut := context.WithCancel(context.WithoutCancel(ctx)) // ends both shutdowns
	defer cut()
	inTime := context.AfterFunc(bounded, func() {
		abort() // first, since abort counts the remaining requests
		time.AfterFunc(tunnelGrace, cut)
	})
	err := errors.Join(s.intercept.server.Shutdown(cutting), s.intercept.proxy.Shutdown(cutting))
	if err == nil && inTime() {
		return nil
	}
	abort()
	_ = s.intercept.proxy.Close()
	_ = s.intercept.server.Close()
	return errors.Join(err, bounded.Err())
}

// tunnelGrace is how long aborted requests in tunnels may take to send their error response.
const tunnelGrace = time.Second
