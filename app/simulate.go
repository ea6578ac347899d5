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

// DefaultSimulateListen is the address of Simulate unless another is named.
const DefaultSimulateListen = "127.0.0.1:9443"

// SimulateOptions are the flags of Simulate.
type SimulateOptions struct {
	// Listen is the address of the API, host:port of this machine.
	Listen string
	// CAFile is written: the authority that clients must trust, in PEM form.
	CAFile string
	// ClientID and ClientSecret are the only credentials that are accepted; the demo's
	// unless set.
	ClientID, ClientSecret string
}

// Simulate runs the simulated Mimecast alone until a signal or ctx ends it, so that
// serve, alerts and manifests can be tried without an account. It prints the variables
// that serve needs.
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

// check rejects what cannot work. The certificate is for names of this machine, and the
// knobs have no password.
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

// simulateText has what is in braces filled in by announce.
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

// announce writes the CA's certificate and prints the variables. Of secrets it prints
// the demo's alone, which is none.
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
