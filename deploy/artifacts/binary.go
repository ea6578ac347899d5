package artifacts

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// fipsModule is the frozen version of Go's cryptographic module that the FIPS variant is
// built with.
const fipsModule = "v1.0.0"

// cycloneDX is the command that writes the SBOMs, as in the Dockerfile.
const cycloneDX = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"

// Target is a platform, with or without FIPS 140-3 mode.
type Target struct {
	OS, Arch string
	FIPS     bool
}

// ParseTarget parses OS/ARCH or OS/ARCH/fips, such as linux/amd64. Other forms are errors.
func ParseTarget(text string) (Target, error) {
	parts := strings.Split(text, "/")
	if len(parts) == 3 && parts[2] == "fips" || len(parts) == 2 {
		t := Target{OS: parts[0], Arch: parts[1], FIPS: len(parts) == 3}
		if slices.Contains(systems, t.OS) && slices.Contains([]string{"amd64", "arm64"}, t.Arch) {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("target %q is not like linux/amd64 or linux/amd64/fips", text)
}

var systems = []string{"linux", "windows", "darwin"}

// name returns the name of the program or of its FIPS variant.
func (t Target) name() string {
	if t.FIPS {
		return program + "-fips"
	}
	return program
}

func (t Target) executable() string {
	if t.OS == "windows" {
		return program + ".exe"
	}
	return program
}

// binary is a built program and its SBOM.
type binary struct {
	Target
	path, sbom string
}

// label returns the prefix of the names of a target's files.
func (r *release) label(t Target) string {
	return fmt.Sprintf("%s_%s_%s_%s", t.name(), r.Version, t.OS, t.Arch)
}

// prepare makes the files that all archives and packages contain.
func (r *release) prepare(ctx context.Context) error {
	for file, linked := range map[string][]string{r.made(notices): systems, r.made("image", notices): {"linux"}} {
		if _, err := r.run(ctx, nil, "go", append([]string{"run", "./deploy/licenses", file}, linked...)...); err != nil {
			return err
		}
	}
	host := filepath.Join(r.work, "host", program)
	if err := r.compile(ctx, Target{OS: runtime.GOOS, Arch: runtime.GOARCH}, host); err != nil {
		return err
	}
	for _, c := range completions {
		text, err := r.run(ctx, nil, host, "completion", c.shell)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(r.made("completions"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(r.made("completions", c.file), []byte(text+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const notices = "THIRD_PARTY_LICENSES"

var completions = []struct{ shell, file, installed string }{
	{"bash", "mimecast-proxy.bash", "/usr/share/bash-completion/completions/mimecast-proxy"},
	{"zsh", "_mimecast-proxy", "/usr/share/zsh/vendor-completions/_mimecast-proxy"},
	{"fish", "mimecast-proxy.fish", "/usr/share/fish/vendor_completions.d/mimecast-proxy.fish"},
	{"powershell", "mimecast-proxy.ps1", ""},
}

// made returns the path of a file that prepare made.
func (r *release) made(elements ...string) string {
	return filepath.Join(append([]string{r.work, "made"}, elements...)...)
}

// compile builds with the Dockerfile's settings, so that archives, packages and image
// contain the same binary.
func (r *release) compile(ctx context.Context, t Target, path string) error {
	environ := []string{"CGO_ENABLED=0", "GOOS=" + t.OS, "GOARCH=" + t.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off"}
	if t.FIPS {
		environ[len(environ)-1] = "GOFIPS140=" + fipsModule
	}
	link := fmt.Sprintf("-s -w -X mimecast-proxy/app.Version=%s -X mimecast-proxy/app.Revision=%s", r.Version, r.revision)
	_, err := r.run(ctx, environ, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+link, "-o", path, ".")
	return err
}

func (r *release) buildBinaries(ctx context.Context) error {
	for _, t := range r.Targets {
		b := binary{Target: t, path: filepath.Join(r.work, r.label(t), t.executable())}
		if err := r.compile(ctx, t, b.path); err != nil {
			return err
		}
		b.sbom = filepath.Join(r.Dist, r.label(t)+".cdx.json")
		if _, err := r.run(ctx, nil, "go", "run", cycloneDX, "bin", "-json", "-noserial", "-notimestamp", "-version", r.Version, "-output", b.sbom, b.path); err != nil {
			return err
		}
		r.binaries = append(r.binaries, b)
	}
	return nil
}
