package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/template"

	"mimecast-proxy/config"
	"mimecast-proxy/service"
	"mimecast-proxy/simulator"
)

// Demo runs the proxy in front of an embedded Mimecast until a signal or ctx
// ends it. It needs no variable; PROXY_* ones are heeded, MIMECAST_* ones are
// not, so that nothing of a real account is touched.
func (p Process) Demo(ctx context.Context) error {
	p.Keeper = service.Keeper{} // who would take the listener for one of the account's
	sim, err := simulator.Start(simulator.Options{})
	if err != nil {
		return fmt.Errorf("starting the simulator: %w", err)
	}
	s, taken, err := p.demoServer(ctx, sim)
	if err != nil {
		return errors.Join(err, sim.Close())
	}
	if err := s.introduce(p.Stdout, sim, taken); err != nil {
		return errors.Join(err, s.drain(nil), sim.Close())
	}
	return errors.Join(s.run(ctx, p.Signals), sim.Close())
}

// demoServer returns a proxy in front of sim. Where a port is taken it uses a
// free one, and says which were taken.
func (p Process) demoServer(ctx context.Context, sim *simulator.Server) (s *server, taken []string, err error) {
	environ := slices.DeleteFunc(slices.Clone(p.Environ), func(v string) bool { return strings.HasPrefix(v, "MIMECAST_") })
	environ = append(environ, "MIMECAST_CLIENT_ID="+simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET="+simulator.DefaultClientSecret, "MIMECAST_BASE_URL="+sim.URL)
	cfg, err := configure(environ)
	if err != nil {
		return nil, nil, err
	}
	cfg.CAPEM = sim.CA
	for _, a := range []*config.Address{&cfg.Listen, &cfg.Admin} {
		free, err := p.isFree(ctx, *a)
		if err != nil {
			return nil, nil, err
		}
		if !free {
			taken = append(taken, a.String())
			host, _, _ := net.SplitHostPort(a.Address) // config has judged it
			a.Address = net.JoinHostPort(host, "0")
		}
	}
	s, err = p.newServer(ctx, cfg)
	return s, taken, err
}

// isFree reports whether nobody listens at a yet.
func (p Process) isFree(ctx context.Context, a config.Address) (bool, error) {
	if a.Network != "tcp" {
		return true, nil
	}
	l, err := p.listen(ctx, a.Network, a.Address)
	if isTaken(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%v: %w", a, err)
	}
	return true, l.Close()
}

var introduction = template.Must(template.New("").Parse(`
Mimecast Proxy, with an embedded Mimecast behind it. Nothing leaves this machine.
{{range .Taken}}
  {{.}} is taken, so the demo uses another port.{{end}}
  Proxy    {{.Proxy}}{{with .Admin}}
  Status   {{.}}/{{end}}
  Stop it  with Ctrl-C

In another terminal, ask as a tool would that knows no OAuth:

  curl {{.Proxy}}/identity/whoami
  curl '{{.Proxy}}/siem/v1/events/cg?types=receipt'
  curl -X POST {{.Proxy}}/api/audit/get-audit-events -d '{"data":[{}]}'

Revoke every token, and ask again: the 401 is renewed away, which the log line
of the request shows as "retried".

  curl -X POST {{.Control}}/revoke
  curl {{.Proxy}}/identity/whoami

What else can go wrong on command:  curl {{.Control}}/

`))

// introduce prints what to try.
func (s *server) introduce(w io.Writer, sim *simulator.Server, taken []string) error {
	view := struct {
		Proxy, Admin, Control string
		Taken                 []string
	}{Proxy: "http://" + s.dataAddr.String(), Control: sim.ControlURL, Taken: taken}
	if s.dataAddr.Network() == "unix" {
		view.Proxy = "--unix-socket " + s.dataAddr.String() + " http://localhost"
	}
	if s.adminAt != nil {
		view.Admin = "http://" + s.adminAt.String()
	}
	return introduction.Execute(w, view)
}
