// Command verify verifies the downloaded files, images and charts of a release. Run it as
// deploy/verify; see docs/releases.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/sigstore/sigstore-go/pkg/root"

	"mimecast-proxy/deploy/artifacts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "verify:", err)
		}
		os.Exit(1)
	}
}

const usage = `Usage: deploy/verify -key FILE WHAT...
       deploy/verify -identity URL WHAT...

WHAT is a file of a release, or an image or chart such as
ghcr.io/OWNER/mimecast-proxy@sha256:…

`

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flags.PrintDefaults()
	}
	key := flags.String("key", "", "file with the public key that signed the release")
	identity := flags.String("identity", "", "workflow that signed the release, such as https://github.com/OWNER/mimecast-proxy/.github/workflows/release.yml@refs/tags/v0.1.0")
	issuer := flags.String("issuer", "https://token.actions.githubusercontent.com", "who vouches for -identity")
	trusted := flags.String("trusted-root", "", "file with Sigstore's trusted root; default: fetched, for -identity")
	bundle := flags.String("bundle", "", "file with the signatures; default: *.sigstore.json next to the file")
	revision := flags.String("revision", "", "revision that the release must be built from")
	builder := flags.String("builder", "", "builder that the provenance must name")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		flags.Usage()
		return errors.New("name at least one file, image or chart")
	}
	v, err := verifier(*key, *identity, *issuer, *trusted)
	if err != nil {
		return err
	}
	v.Revision, v.Builder, v.Out = *revision, *builder, os.Stdout
	for _, what := range flags.Args() {
		if err := check(ctx, v, what, *bundle); err != nil {
			return err
		}
	}
	return nil
}

func check(ctx context.Context, v *artifacts.Verifier, what, bundle string) error {
	if _, err := os.Stat(what); err != nil {
		return v.Reference(ctx, what)
	}
	if bundle != "" {
		return v.File(what, bundle)
	}
	return v.File(what)
}

func verifier(key, identity, issuer, trusted string) (*artifacts.Verifier, error) {
	switch {
	case (key == "") == (identity == ""):
		return nil, errors.New("set either -key or -identity: whom do you trust?")
	case key != "":
		pem, err := os.ReadFile(key)
		if err != nil {
			return nil, err
		}
		return artifacts.TrustKey(pem)
	case trusted != "":
		material, err := root.NewTrustedRootFromPath(trusted)
		if err != nil {
			return nil, err
		}
		return artifacts.TrustIdentity(material, identity, issuer)
	}
	material, err := root.FetchTrustedRoot()
	if err != nil {
		return nil, fmt.Errorf("the trusted root cannot be fetched, set -trusted-root: %w", err)
	}
	return artifacts.TrustIdentity(material, identity, issuer)
}
