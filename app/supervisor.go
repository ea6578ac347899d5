package app

import (
	"context"
	"net"
	"net/http"
	"time"

	"mimecast-proxy/config"
)

// environWithActivatedSockets is the environment in which the listeners that the supervisor opened
// are what the operator asked for, so that they are judged as if he had.
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

// report reports to the supervisor that the server is ready, once the first token is
// held or could not be fetched, and from then on that it responds.
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

// keepAlive reports to the supervisor, twice in each of its periods, that the admin
// listener responds; without one, that the process runs.
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
