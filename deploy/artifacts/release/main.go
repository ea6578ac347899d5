// Command release builds a release, signs it, and pushes the image and the chart. Run it as
// deploy/release; see CONTRIBUTING.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"mimecast-proxy/deploy/artifacts"
)

const (
	debian  = "/etc/ssl/certs/ca-certificates.crt"
	license = "/usr/share/doc/ca-certificates/copyright"
	all     = "linux/amd64,linux/arm64,windows/amd64,windows/arm64,darwin/amd64,darwin/arm64,linux/amd64/fips,linux/arm64/fips"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "release:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := artifacts.Options{Log: os.Stderr}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&o.Source, "source", ".", "root of the checkout to build")
	flags.StringVar(&o.Dist, "dist", "dist", "directory that gets the release; an earlier release in it is removed")
	flags.StringVar(&o.Version, "version", "", "version, such as 0.1.0; default: the tag of the checked-out commit")
	flags.StringVar(&o.Registry, "registry", "", "push to this registry, such as ghcr.io/OWNER: OWNER/mimecast-proxy and OWNER/charts/mimecast-proxy")
	flags.StringVar(&o.DownloadURL, "download-url", "", "where the archives will be, for Homebrew and winget")
	flags.StringVar(&o.SourceURL, "source-url", "file:mimecast-proxy", "URL of the repository, for the provenance")
	flags.StringVar(&o.Builder, "builder", "file:by-hand", "URI of who builds, for the provenance")
	flags.StringVar(&o.CARoots, "ca-roots", debian, "CA roots for the image")
	flags.StringVar(&o.CALicense, "ca-license", license, "license of the CA roots")
	targets := flags.String("targets", all, "what to build")
	key := flags.String("key", "", "file with the private key to sign with, made by cosign generate-key-pair")
	password := flags.String("key-password-file", "", "file with the key's password; default: none")
	keyless := flags.Bool("keyless", false, "sign as the GitHub workflow that runs")
	packageKey := flags.String("package-key", "", "file with the OpenPGP key that signs the APT and RPM repositories")
	packagePassword := flags.String("package-key-password-file", "", "file with that key's password; default: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	for text := range strings.SplitSeq(*targets, ",") {
		t, err := artifacts.ParseTarget(text)
		if err != nil {
			return err
		}
		o.Targets = append(o.Targets, t)
	}
	var err error
	if o.Signer, err = signer(*key, *password, *keyless); err != nil {
		return err
	}
	if *packageKey != "" {
		text, secret, err := readKey(*packageKey, *packagePassword)
		if err != nil {
			return err
		}
		if o.PackageKey, err = artifacts.ReadPackageKey(text, secret); err != nil {
			return err
		}
	}
	return artifacts.Build(ctx, o)
}

func signer(key, password string, keyless bool) (artifacts.Signer, error) {
	switch {
	case key != "" && keyless:
		return nil, errors.New("-key and -keyless exclude each other")
	case keyless:
		return artifacts.NewKeylessSigner(os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
	case key == "":
		return nil, nil
	}
	pem, secret, err := readKey(key, password)
	if err != nil {
		return nil, err
	}
	return artifacts.NewKeySigner(pem, secret)
}

// readKey reads a key file and its password file, without the password's final newline.
func readKey(key, password string) (text, secret []byte, err error) {
	if text, err = os.ReadFile(key); err != nil || password == "" {
		return text, nil, err
	}
	secret, err = os.ReadFile(password)
	return text, []byte(strings.TrimRight(string(secret), "\r\n")), err
}
