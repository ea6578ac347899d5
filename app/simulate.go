package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"mimecast-proxy/simulator"
)

// DefaultSimulateListen is the default of SimulateOptions.Listen on the command line.
const DefaultSimulateListen = "127.0.0.1:9443"

// SimulateOptions are the flags of Simulate.
type SimulateOptions struct {
	// Listen is the address of the simulated API, host:port. The host must be a loopback
	// address or localhost.
	Listen string
	// CAFile is the file to write the CA certificate to, in PEM form. It must be set.
	CAFile string
	// ClientID and ClientSecret are the only accepted credentials; if both are empty, those
	// of the demo.
	ClientID, ClientSecret string
}

// Simulate runs the Mimecast simulator without a proxy until a signal or ctx ends it. It prints
// the variables that serve needs. Use it to try serve, alerts and manifests without an
// account.
func (p Env) Simulate(ctx context.Context, o SimulateOptions) error {
	if err := o.check(); err != nil {
		return &ExitError{Code: ExitUsage, Err: err}
	}
	sim, err := simulator.Start(simulator.Options{Address: o.Listen, ClientID: o.ClientID, ClientSecret: o.ClientSecret})
	if err != nil {
		return err
	}
	if err := p.announce(sim, o); err != nil {
		return errors.Join(err, sim.Close())
	}
	ctx, stop := p.untilSignal(ctx)
	defer stop()
	<-ctx.Done()
	return sim.Close()
}

// check rejects options that cannot work. The address must be loopback, since the certificate
// covers loopback names only and the control endpoints have no password.
func (o SimulateOptions) check() error {
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("--listen %q is not host:port; use %s", o.Listen, DefaultSimulateListen)
	}
	if !isLoopback(host) {
		return fmt.Errorf("--listen %q is not a loopback address; use %s", o.Listen, DefaultSimulateListen)
	}
	if o.CAFile == "" {
		return errors.New("--ca-out is missing: name the file to write the CA certificate to, for MIMECAST_CA_FILE")
	}
	if (o.ClientID == "") != (o.ClientSecret == "") {
		return errors.New("--client-id and --client-secret must be set together")
	}
	return nil
}

// simulateText is a template: announce replaces the names in braces.
const simulateText = `
A simulated Mimecast API 2.0 serves at {url}. Nothing leaves this machine.

In another terminal, start the proxy with these variables:

  MIMECAST_BASE_URL={url}
  MIMECAST_CA_FILE={ca}
  MIMECAST_CLIENT_ID={id}
  MIMECAST_CLIENT_SECRET={secret}

List the faults to try:  curl {control}/
Stop:                    Ctrl-C

`

// announce writes the CA certificate and prints the variables. The only secret that it prints
// is the demo's, which is public.
func (p Env) announce(sim *simulator.Server, o SimulateOptions) error {
	ca, err := filepath.Abs(o.CAFile)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ca, sim.CA, 0o644); err != nil { //nolint:gosec // a certificate is public
		return fmt.Errorf("writing the file of --ca-out: %w", err)
	}
	id, secret := o.ClientID, "(that of --client-secret)"
	if id == "" {
		id, secret = simulator.DefaultClientID, simulator.DefaultClientSecret
	}
	_, err = io.WriteString(p.Stdout, strings.NewReplacer(
		"{url}", sim.URL, "{ca}", ca, "{id}", id, "{secret}", secret, "{control}", sim.ControlURL,
	).Replace(simulateText))
	return err
}
