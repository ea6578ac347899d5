package artifacts

import (
	"bytes"
	"context"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

// packageFile is a built package and its metadata.
type packageFile struct {
	name, format string
	info         *nfpm.Info
}

func (r *release) buildPackages(context.Context) error {
	for _, b := range r.binaries {
		if b.OS != "linux" {
			continue
		}
		for _, format := range []string{"deb", "rpm"} {
			if err := r.buildPackage(b, format); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *release) buildPackage(b binary, format string) error {
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	info := nfpm.WithDefaults(r.packageInfo(b))
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	info.Target = packager.ConventionalFileName(info)
	var out bytes.Buffer
	if err := packager.Package(info, &out); err != nil {
		return err
	}
	r.packages = append(r.packages, packageFile{info.Target, format, info})
	return r.write(info.Target, out.Bytes())
}

func (r *release) packageInfo(b binary) *nfpm.Info {
	info := &nfpm.Info{
		Name: b.name(), Arch: b.Arch, Platform: "linux", Version: r.Version, Release: "1", MTime: r.time,
		Section: "net", Priority: "optional", Maintainer: maintainer, Description: description, License: license,
		Overridables: nfpm.Overridables{
			Recommends: []string{"ca-certificates"},
			Contents:   r.packageContents(b),
			RPM:        nfpm.RPM{BuildHost: "localhost"}, // not the build machine's name
		},
	}
	if b.FIPS {
		// Both packages install the same files.
		info.Conflicts, info.Replaces, info.Provides = []string{program}, []string{program}, []string{program}
		info.Description += ", in FIPS 140-3 mode"
	}
	return info
}

func (r *release) packageContents(b binary) files.Contents {
	const units, doc = "/usr/lib/systemd/system/", "/usr/share/doc/mimecast-proxy/"
	in := func(name string) string { return filepath.Join(r.Source, name) }
	contents := files.Contents{
		r.content(b.path, "/usr/bin/mimecast-proxy", 0o755),
		r.content(in("deploy/systemd/mimecast-proxy.service"), units+"mimecast-proxy.service", 0o644),
		r.content(in("deploy/systemd/mimecast-proxy.socket"), units+"mimecast-proxy.socket", 0o644),
		r.content(in("docs/mimecast-proxy.1"), "/usr/share/man/man1/mimecast-proxy.1", 0o644),
		r.content(in("LICENSE"), doc+"copyright", 0o644),
		r.content(r.made(notices), doc+notices, 0o644),
		r.content(b.sbom, doc+"sbom.cdx.json", 0o644),
	}
	for _, c := range completions {
		if c.installed != "" {
			contents = append(contents, r.content(r.made("completions", c.file), c.installed, 0o644))
		}
	}
	// The directory holds the client ID and the secret.
	directory := r.content("", "/etc/mimecast-proxy", 0o700)
	directory.Type = files.TypeDir
	settings := r.content(in("deploy/systemd/environment"), "/etc/mimecast-proxy/environment", 0o600)
	settings.Type = files.TypeConfigNoReplace
	return append(contents, directory, settings)
}

func (r *release) content(source, destination string, mode os.FileMode) *files.Content {
	return &files.Content{Source: source, Destination: destination, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.time}}
}
