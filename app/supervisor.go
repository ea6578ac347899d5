package app

import (
	"context"
	"net"
	"net/http"
	"time"

	"mimecast-proxy/config"
)

// environWithActivatedSockets returns the environment with the supervisor's listeners as
// PROXY_LISTEN and PROXY_ADMIN_LISTEN, so that they are validated like the operator's.
func (p Env) environWithActivatedSockets() []string {
	environ := p.Environ[:len(p.Environ):len(p.Environ)]
	if l := p.Supervisor.Data; l != nil {
		environ = append(environ, "PROXY_LISTEN="+addressOf(l).String())
	}
	if l := p.Supervisor.Admin; l != nil {
		environ = append(environ, "PROXY_ADMIN_LISTEN="+addressOf(l).String())
	}
	return environ
}

func addressOf(l net.Listener) config.Address {
	return config.Address{Network: l.Addr().Network(), Address: l.Addr().String()}
}

// report notifies the supervisor that the proxy is ready, after the first token request
// succeeded or failed. From then on it reports liveness, if the supervisor has a watchdog.
func (s *instance) report(ctx context.Context) {
	first, cancel := context.WithTimeout(ctx, firstToken)
	err := s.accounts.awaitTokens(first)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if s.supervisor.Ready != nil {
		status := "Serving at " + s.dataAddr.String()
		if err != nil {
			status += ", without a token so far"
		}
		s.supervisor.Ready(status)
	}
	if s.supervisor.Watchdog > 0 {
		s.keepAlive(ctx)
	}
}

// keepAlive notifies the supervisor twice per watchdog period while the admin listener
// responds. Without an admin listener, it always does.
func (s *instance) keepAlive(ctx context.Context) {
	tick := time.NewTicker(s.supervisor.Watchdog / 2)
	defer tick.Stop()
	for {
		if s.answers(ctx) {
			s.supervisor.Alive()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *instance) answers(ctx context.Context) bool {
	if s.adminAt == nil {
		return true
	}
	a := newAdminClient(config.Address{Network: s.adminAt.Network(), Address: s.adminAt.String()})
	defer a.client.CloseIdleConnections()
	res, err := a.do(ctx, http.MethodGet, "/livez")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}
