package artifacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// writeInstallers writes the Homebrew formula and the winget manifests, if their archives
// were built and DownloadURL is set.
func (r *release) writeInstallers(context.Context) error {
	if r.DownloadURL == "" {
		fmt.Fprintln(r.Log, "skipped, because no -download-url is set")
		return nil
	}
	if err := r.writeFormula(); err != nil {
		return err
	}
	return r.writeWinget()
}

// archiveOf returns an archive's URL and digest, or empty strings if it was not built.
func (r *release) archiveOf(system, arch, extension string) (url, digest string, err error) {
	name := r.label(Target{OS: system, Arch: arch}) + extension
	digest, err = fileDigest(filepath.Join(r.Dist, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	return strings.TrimSuffix(r.DownloadURL, "/") + "/" + name, digest, err
}

func (r *release) writeFormula() error {
	var b strings.Builder
	fmt.Fprintf(&b, "class MimecastProxy < Formula\n  desc %q\n  homepage %q\n  version %q\n  license %q\n", strings.TrimPrefix(description, "An "), r.SourceURL, r.Version, license)
	for _, system := range []struct{ name, block string }{{"darwin", "macos"}, {"linux", "linux"}} {
		blocks := ""
		for _, cpu := range []struct{ name, block string }{{"arm64", "arm"}, {"amd64", "intel"}} {
			url, digest, err := r.archiveOf(system.name, cpu.name, ".tar.gz")
			if err != nil {
				return err
			}
			if url != "" {
				blocks += fmt.Sprintf("    on_%s do\n      url %q\n      sha256 %q\n    end\n", cpu.block, url, digest)
			}
		}
		if blocks != "" {
			fmt.Fprintf(&b, "\n  on_%s do\n%s  end\n", system.block, blocks)
		}
	}
	b.WriteString(`
  def install
    bin.install "mimecast-proxy"
    man1.install "docs/mimecast-proxy.1"
    bash_completion.install "completions/mimecast-proxy.bash" => "mimecast-proxy"
    zsh_completion.install "completions/_mimecast-proxy"
    fish_completion.install "completions/mimecast-proxy.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/mimecast-proxy version")
  end
end
`)
	return r.write(program+".rb", []byte(b.String()))
}

// wingetID is winget's identifier for the package.
const wingetID = "MimecastProxy.MimecastProxy"

// manifest has the fields of winget's schema 1.6.0 that a portable program in an archive
// needs, for its three files.
type manifest struct {
	PackageIdentifier    string
	PackageVersion       string
	DefaultLocale        string            `json:",omitempty"`
	PackageLocale        string            `json:",omitempty"`
	Publisher            string            `json:",omitempty"`
	PackageName          string            `json:",omitempty"`
	PackageURL           string            `json:"PackageUrl,omitempty"`
	License              string            `json:",omitempty"`
	ShortDescription     string            `json:",omitempty"`
	InstallerType        string            `json:",omitempty"`
	NestedInstallerType  string            `json:",omitempty"`
	NestedInstallerFiles []nestedInstaller `json:",omitempty"`
	Installers           []installer       `json:",omitempty"`
	ManifestType         string
	ManifestVersion      string
}

type nestedInstaller struct{ RelativeFilePath, PortableCommandAlias string }

type installer struct {
	Architecture    string
	InstallerURL    string `json:"InstallerUrl"`
	InstallerSha256 string
}

func (r *release) writeWinget() error {
	var installers []installer
	for _, cpu := range []struct{ name, winget string }{{"amd64", "x64"}, {"arm64", "arm64"}} {
		url, digest, err := r.archiveOf("windows", cpu.name, ".zip")
		if err != nil {
			return err
		}
		if url != "" {
			installers = append(installers, installer{cpu.winget, url, strings.ToUpper(digest)})
		}
	}
	if len(installers) == 0 {
		return nil
	}
	for suffix, m := range map[string]manifest{
		"": {ManifestType: "version", DefaultLocale: "en-US"},
		".installer": {
			ManifestType: "installer", InstallerType: "zip", NestedInstallerType: "portable",
			NestedInstallerFiles: []nestedInstaller{{program + ".exe", program}}, Installers: installers,
		},
		".locale.en-US": {
			ManifestType: "defaultLocale", PackageLocale: "en-US", Publisher: maintainer, PackageName: "Mimecast Proxy",
			PackageURL: r.SourceURL, License: license, ShortDescription: description,
		},
	} {
		m.PackageIdentifier, m.PackageVersion, m.ManifestVersion = wingetID, r.Version, "1.6.0"
		text, err := yaml.Marshal(m)
		if err != nil {
			return err
		}
		if err := r.write(wingetID+suffix+".yaml", text); err != nil {
			return err
		}
	}
	return nil
}
