package deploy_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"mimecast-proxy/simulator"
)

// These tests need no Docker engine. BuildKit parses the Dockerfile, and the tests run its
// commands in directories that contain only the build context.

const root = "../.."

func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed.Warnings) > 0 {
		t.Errorf("warnings: %v", parsed.Warnings)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

// build runs the build stage in a separate directory, and returns the path of /out. cache
// is the build cache; if empty, build uses the machine's.
func build(t *testing.T, platform, cache string) string {
	t.Helper()
	src, out := buildContext(t), t.TempDir()
	goos, goarch, _ := strings.Cut(platform, "/")
	for _, command := range dockerfile(t)[0].Commands {
		run, ok := command.(*instructions.RunCommand)
		if !ok {
			continue
		}
		line := strings.ReplaceAll(strings.Join(run.CmdLine, " "), "/out/", out+"/")
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = src
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TARGETOS=" + goos, "TARGETARCH=" + goarch, "VERSION=1.2.3", "REVISION=" + revision(t)}
		for _, name := range []string{"GOPROXY", "GOSUMDB", "GOMODCACHE", "GOFLAGS", "GOCACHE"} {
			if value, ok := os.LookupEnv(name); ok {
				cmd.Env = append(cmd.Env, name+"="+value)
			}
		}
		if cache != "" && !strings.Contains(line, "cyclonedx") {
			cmd.Env = append(cmd.Env, "GOCACHE="+cache)
		}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, text)
		}
	}
	return out
}

func sum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(text)
}

func TestImagesBinaryIsReproducible(t *testing.T) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	one, other := build(t, platform, ""), build(t, platform, t.TempDir())
	for _, name := range []string{"mimecast-proxy", "sbom.cdx.json", "licenses/THIRD_PARTY_LICENSES"} {
		a, b := sum(t, filepath.Join(one, name)), sum(t, filepath.Join(other, name))
		if a != b {
			t.Errorf("%s: %x and %x", name, a, b)
		}
		t.Logf("%s: sha256 %x, twice", name, a)
	}
	version, err := exec.CommandContext(t.Context(), filepath.Join(one, "mimecast-proxy"), "version").Output()
	if err != nil || !strings.HasPrefix(string(version), "mimecast-proxy 1.2.3,") {
		t.Errorf("%v: %s", err, version)
	}
	var bill struct {
		BomFormat  string
		Components []struct{ Purl string }
	}
	text, err := os.ReadFile(filepath.Join(one, "sbom.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &bill); err != nil || bill.BomFormat != "CycloneDX" || !strings.Contains(string(text), "pkg:golang/github.com/prometheus/client_golang@") {
		t.Errorf("not a bill of materials: %v\n%s", err, text)
	}
}

func TestImageIsSmallLockedAndLabelled(t *testing.T) {
	stages := dockerfile(t)
	if base := stages[0].BaseName; !strings.HasPrefix(base, "golang:") || strings.Count(base, ".") != 2 {
		t.Errorf("the base %s is not pinned to a version", base)
	}
	final := stages[len(stages)-1]
	if final.BaseName != "scratch" {
		t.Errorf("it is from %s", final.BaseName)
	}
	labels := map[string]bool{}
	user, copied := "", []string{}
	for _, command := range final.Commands {
		switch c := command.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.LabelCommand:
			for _, l := range c.Labels {
				labels[strings.Trim(l.Key, `"`)] = true
			}
		case *instructions.CopyCommand:
			copied = append(copied, c.SourcePaths...)
		}
	}
	if user != "65532:65532" || len(copied) != 4 {
		t.Errorf("user %q, files %v", user, copied)
	}
	for _, label := range []string{"title", "description", "licenses", "version", "revision"} {
		if !labels["org.opencontainers.image."+label] {
			t.Errorf("no label %s", label)
		}
	}
}

func TestComposeFileStartsTheDemoAndTheRealThing(t *testing.T) {
	n := newNode(t)
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithProfiles([]string{"demo", "real"}), cli.WithName("mimecast-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"demo", "proxy"} {
		service := project.Services[name]
		if port := service.Ports[0]; port.HostIP != "127.0.0.1" || port.Target != 8080 || !service.ReadOnly || service.User == "" {
			t.Errorf("%s: %+v", name, service)
		}
		environ := []string{"MIMECAST_BASE_URL=" + n.sim.URL, "MIMECAST_CA_FILE=" + n.ca, "PROXY_ADMIN_LISTEN=127.0.0.1:0"}
		dir := t.TempDir()
		for _, secret := range service.Secrets {
			value := map[string]string{"mimecast_id": simulator.DefaultClientID, "mimecast_secret": simulator.DefaultClientSecret}[secret.Source]
			if err := os.WriteFile(filepath.Join(dir, secret.Source), []byte(value), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for key, value := range service.Environment {
			text := strings.ReplaceAll(*value, "/run/secrets/", dir+"/")
			if key == "PROXY_LISTEN" {
				text = strings.Replace(text, ":8080", ":0", 1)
			}
			environ = append(environ, key+"="+text)
		}
		p := n.start(environ, service.Command...)
		p.await("an answer", func() bool {
			return p.get("http://"+p.data+"/identity/whoami", "127.0.0.1:8080", "") == http.StatusOK
		})
		p.end()
	}
}
