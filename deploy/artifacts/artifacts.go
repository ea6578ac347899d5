// Package artifacts builds the files, the container image and the chart of a release, signs
// them, and verifies downloads. The same commit, version and Go give the same bytes in any
// directory; only signatures differ.
package artifacts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
)

const (
	program     = "mimecast-proxy"
	description = "An authenticating proxy for the Mimecast API 2.0"
	license     = "MIT"
	maintainer  = "The Mimecast Proxy authors"
)

// Options says what to build a release from and where to put it.
type Options struct {
	// Source is the root of a checkout without changes.
	Source string
	// Dist is the directory for the release. Build empties it first, and fails if it
	// contains anything but an earlier release.
	Dist string
	// Version is without a leading v; empty means the tag of the checked-out commit.
	Version string
	// Targets are the binaries to build.
	Targets []Target
	// Registry is the prefix of the image and of charts/, such as ghcr.io/OWNER. If empty,
	// nothing is pushed.
	Registry string
	// DownloadURL is the URL of the directory with the archives, for Homebrew and winget.
	// If empty, neither gets a manifest.
	DownloadURL string
	// SourceURL and Builder are the repository and the builder that the provenance names.
	SourceURL, Builder string
	// Signer signs the release. If nil, nothing is signed.
	Signer Signer
	// PackageKey signs the APT and RPM repositories. If nil, they are not built, because
	// package managers reject unsigned ones.
	PackageKey *openpgp.Entity
	// CARoots and CALicense are the paths of the files that the image takes from Debian's
	// package ca-certificates.
	CARoots, CALicense string
	// Log gets one line for each step.
	Log io.Writer
}

// release is one run of Build.
type release struct {
	Options
	commit
	work     string // for files that are not part of the release
	image    pinned
	binaries []binary
	packages []packageFile
	oci      []published
}

// Build builds the release and, if Registry is set, pushes the image and the chart. If a
// step fails, it returns that step's error.
func Build(ctx context.Context, o Options) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // the system cleans its temporary directory eventually
	r := &release{Options: o, work: work}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"source", r.readSource},
		{"licenses and completions", r.prepare},
		{"binaries", r.buildBinaries},
		{"archives", r.buildArchives},
		{"packages", r.buildPackages},
		{"image", r.buildImages},
		{"chart and manifests", r.buildChart},
		{"Homebrew and winget", r.writeInstallers},
		{"APT and RPM repositories", r.buildRepositories},
		{"checksums", r.writeSums},
		{"signatures", r.sign},
		{"OCI layout", r.writeLayout},
		{"push", r.push},
	} {
		fmt.Fprintln(r.Log, step.name)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// write writes a file of the release.
func (r *release) write(name string, content []byte) error {
	path := filepath.Join(r.Dist, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// files returns the names of the files that can be downloaded individually, sorted.
func (r *release) files() ([]string, error) {
	entries, err := os.ReadDir(r.Dist)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

const sums = "SHA256SUMS"

func (r *release) writeSums(context.Context) error {
	names, err := r.files()
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range names {
		digest, err := fileDigest(filepath.Join(r.Dist, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", digest, name)
	}
	return r.write(sums, []byte(b.String()))
}

// fileDigest returns a file's SHA-256 in hexadecimal.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was opened only for reading
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hexSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
