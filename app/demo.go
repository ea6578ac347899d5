package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/config"
	"mimecast-proxy/connection"
	"mimecast-proxy/server"
	"mimecast-proxy/simulator"
	"mimecast-proxy/telemetry"
)

// Demo runs the proxy in front of an embedded Mimecast simulator until a signal or ctx ends
// it. It needs no variables. It uses PROXY_* variables, but ignores MIMECAST_* ones, so that
// it never touches a real account.
func (p Env) Demo(ctx context.Context) error {
	return p.demo(ctx, func(*simulator.Server, []string) ([]string, error) {
		return []string{"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret}, nil
	})
}

// DemoConnect runs Connect against the simulator, and then Demo with that connection. The
// connection is stored in a temporary folder, which is removed at the end.
func (p Env) DemoConnect(ctx context.Context, o ConnectOptions) error {
	dir, err := os.MkdirTemp("", "mimecast-proxy-demo-")
	if err != nil {
		return err
	}
	err = p.demo(ctx, func(sim *simulator.Server, environ []string) ([]string, error) {
		ca := filepath.Join(dir, "ca.pem")
		if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
			return nil, err
		}
		// Each system's variable for the folder with connections.
		home := []string{"MIMECAST_CA_FILE=" + ca, "HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "AppData=" + dir}
		connecting := p
		connecting.userEnviron = p.Environ
		connecting.Environ = append(append(slices.Clone(environ), home...), "MIMECAST_BASE_URL="+sim.URL)
		o.Profile, o.Store = config.DefaultProfile, string(connection.File)
		return home, connecting.connect(ctx, o, demoHint)
	})
	return errors.Join(err, os.RemoveAll(dir))
}

const demoHint = "This is the demo. Enter the client ID " + simulator.DefaultClientID + " and the client secret " + simulator.DefaultClientSecret + ".\n\n"

// demo runs the proxy in front of the simulator. credentials gets the environment without
// MIMECAST_ variables, and returns the variables to add to it.
func (p Env) demo(ctx context.Context, credentials func(*simulator.Server, []string) ([]string, error)) error {
	p.Supervisor = server.Supervisor{} // its listeners are for a real account
	sim, err := simulator.Start(simulator.Options{})
	if err != nil {
		return fmt.Errorf("starting the simulator: %w", err)
	}
	environ := without(p.Environ, func(v string) bool { return strings.HasPrefix(v, "MIMECAST_") })
	more, err := credentials(sim, environ)
	if err != nil {
		return errors.Join(err, sim.Close())
	}
	s, taken, err := p.demoServer(ctx, sim, append(environ, more...))
	if err != nil {
		return errors.Join(err, sim.Close())
	}
	out := telemetry.NewLogWriter(p.Stdout, nil) // a slow reader must not block the demo
	defer out.Close()
	if err := s.printIntro(out, sim, taken); err != nil {
		return errors.Join(err, s.drain(nil, true), sim.Close())
	}
	return errors.Join(s.run(ctx, p.Signals), sim.Close())
}

// demoServer returns a proxy in front of sim. If a port is in use, it takes a free one
// instead. It also returns the addresses that were in use.
func (p Env) demoServer(ctx context.Context, sim *simulator.Server, environ []string) (s *instance, taken []string, err error) {
	cfg, err := p.configure(append(environ, "MIMECAST_BASE_URL="+sim.URL))
	if err != nil {
		return nil, nil, err
	}
	if err := rejectClients(cfg, "the demo has no client's key"); err != nil {
		return nil, nil, err
	}
	if cfg.CA, err = config.ParseAuthorities(sim.CA); err != nil {
		return nil, nil, fmt.Errorf("reading the simulator's authority: %w", err)
	}
	var wanted []*config.Address
	for i := range cfg.Listen {
		wanted = append(wanted, &cfg.Listen[i])
	}
	for _, a := range append(wanted, &cfg.Admin) {
		free, err := p.isFree(ctx, *a)
		if err != nil {
			return nil, nil, err
		}
		if !free {
			taken = append(taken, a.String())
			host, _, _ := net.SplitHostPort(a.Address) // config has validated it
			a.Address = net.JoinHostPort(host, "0")
		}
	}
	actions := append(demoActions(sim), admin.Action{
		Name: "ask", Label: "Send requests", Description: "Sends three requests through the proxy, as a client without OAuth does.",
		Do: func(ctx context.Context) error { return s.ask(ctx) },
	})
	s, err = p.newInstance(ctx, cfg, actions...)
	return s, taken, err
}

// demoActions returns the buttons of the demo's status page that change sim.
func demoActions(sim *simulator.Server) []admin.Action {
	slow := simulator.Fault{Name: "demo-slow", Delay: 6 * time.Second}
	dead := simulator.Fault{Name: "demo-token-dead", Path: "/oauth/token", Status: http.StatusServiceUnavailable}
	return []admin.Action{
		{
			Name: "revoke", Label: "Revoke the token",
			Description: "Mimecast responds 401 to the next request. The proxy fetches a new token and retries, and the client gets 200. Wait 10 s before you revoke again: the proxy keeps a new token that long.",
			Do:          func(context.Context) error { sim.RevokeTokens(); return nil },
		},
		toggle(sim, dead, admin.Action{
			Name: "fail-token", Label: "Fail the token endpoint", UndoLabel: "Restore the token endpoint",
			Description: "Requests succeed while the current token is valid. Revoke it too, and they get 503 until you restore the endpoint.",
		}),
		toggle(sim, slow, admin.Action{
			Name: "slow", Label: "Slow Mimecast down", UndoLabel: "Make Mimecast fast again",
			Description: "Each response takes 6 s. The plot shows whose time it is.",
		}),
	}
}

// toggle completes an action that switches a fault on and off.
func toggle(sim *simulator.Server, f simulator.Fault, a admin.Action) admin.Action {
	is := func(armed simulator.ArmedFault) bool { return armed.Name == f.Name }
	a.Active = func() bool { return slices.ContainsFunc(sim.Faults(), is) }
	a.Do = func(context.Context) error {
		if !a.Active() {
			sim.AddFault(f)
		}
		return nil
	}
	a.Undo = func(context.Context) error {
		for _, armed := range sim.Faults() {
			if is(armed) {
				sim.RemoveFault(armed.ID)
			}
		}
		return nil
	}
	return a
}

// sample is a typical request of a tool.
type sample struct{ method, target, body string }

// samples are the requests that introText shows.
var samples = []sample{
	{http.MethodGet, "/identity/whoami", ""},
	{http.MethodGet, "/siem/v1/events/cg?types=receipt", ""},
	{http.MethodPost, "/api/audit/get-audit-events", `{"data":[{}]}`},
}

// ask sends the samples through the proxy. The responses appear on the status page.
func (s *instance) ask(ctx context.Context) error {
	at := config.Address{Network: s.dataAddr.Network(), Address: s.dataAddr.String()}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, at.Network, reachable(at))
	}}}
	defer client.CloseIdleConnections()
	errs := make([]error, len(samples))
	var asking sync.WaitGroup
	for i, sample := range samples {
		asking.Go(func() { errs[i] = s.send(ctx, client, sample) })
	}
	asking.Wait()
	return errors.Join(errs...)
}

func (s *instance) send(ctx context.Context, client *http.Client, what sample) error {
	req, err := http.NewRequestWithContext(ctx, what.method, "http://localhost"+what.target, strings.NewReader(what.body))
	if err != nil {
		return err
	}
	if !s.cfg.APIKey.IsZero() {
		req.Header.Set("X-Proxy-Key", s.cfg.APIKey.Value().Reveal())
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("sending a request to the proxy: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("reading the proxy's response: %w", err)
	}
	return nil
}

// isFree reports whether the proxy can listen at a. It does not test Unix sockets.
func (p Env) isFree(ctx context.Context, a config.Address) (bool, error) {
	if a.Network != "tcp" {
		return true, nil
	}
	l, err := p.listen(ctx, a.Network, a.Address)
	if server.IsAddressInUse(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%v: %w", a, err)
	}
	return true, l.Close()
}

// introText is a template: printIntro replaces the names in braces.
const introText = `
Mimecast Proxy, in front of an embedded Mimecast simulator. Nothing leaves this machine.
{taken}
  Proxy    {proxy}{status}
  Stop     Ctrl-C

In another terminal, send requests without a token:

  curl {options}{proxy}/identity/whoami
  curl {options}'{proxy}/siem/v1/events/cg?types=receipt'
  curl {options}-X POST {proxy}/api/audit/get-audit-events -d '{"data":[{}]}'

Revoke every token, and send a request. The proxy gets 401, fetches a new token and
retries; the log line shows retried=true. Wait 10 s before you revoke again: the
proxy keeps a token that it fetched because of a 401 for that long.

  curl -X POST {control}/revoke
  curl {options}{proxy}/identity/whoami

List more faults to try:  curl {control}/

`

// printIntro prints what to try.
func (s *instance) printIntro(w io.Writer, sim *simulator.Server, taken []string) error {
	options, proxy := "", "http://"+s.dataAddr.String()
	if s.dataAddr.Network() == "unix" {
		options, proxy = "--unix-socket "+s.dataAddr.String()+" ", "http://localhost"
	}
	if !s.cfg.APIKey.IsZero() {
		options += `-H "X-Proxy-Key: $PROXY_API_KEY" `
	}
	status := ""
	if s.adminAt != nil && s.adminAt.Network() == "tcp" { // browsers cannot open Unix sockets
		status = "\n  Status   http://" + s.adminAt.String() + "/  (open it in a browser to watch and to break things)"
	}
	elsewhere := ""
	for _, address := range taken {
		elsewhere += "\n  " + address + " is in use, so the demo uses another port."
	}
	_, err := strings.NewReplacer(
		"{taken}", elsewhere, "{proxy}", proxy, "{status}", status, "{options}", options, "{control}", sim.ControlURL,
	).WriteString(w, introText)
	return err
}
