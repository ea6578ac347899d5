package deploy_test

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

const notices = "THIRD_PARTY_LICENSES"

func goInRoot(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), environ...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// legalTexts returns the files in dir that must be distributed with the binary.
func legalTexts(t *testing.T, dir string) []string {
	t.Helper()
	var texts []string
	for _, pattern := range []string{"LICENSE*", "COPYING*", "NOTICE*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, strings.TrimSpace(string(text)))
		}
	}
	return texts
}

// The binaries themselves list their linked modules.
func TestReleaseHasTheLicenseOfEveryLinkedModule(t *testing.T) {
	file := filepath.Join(t.TempDir(), notices)
	systems := []string{"linux", "windows", "darwin"}
	goInRoot(t, nil, append([]string{"run", "./deploy/licenses", file}, systems...)...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shipped := string(text)
	for _, own := range legalTexts(t, goInRoot(t, nil, "env", "GOROOT")) {
		if !strings.Contains(shipped, own) {
			t.Error("Go's own license is missing")
		}
	}
	for _, system := range systems {
		binary := filepath.Join(t.TempDir(), system)
		goInRoot(t, []string{"GOOS=" + system, "CGO_ENABLED=0"}, "build", "-o", binary, ".")
		info, err := buildinfo.ReadFile(binary)
		if err != nil || len(info.Deps) < 15 {
			t.Fatalf("%s: %v: %v", system, info, err)
		}
		for _, module := range info.Deps {
			if !strings.Contains(shipped, "\n"+module.Path+" "+module.Version+": ") {
				t.Errorf("%s: %s is not named", system, module.Path)
			}
			texts := legalTexts(t, goInRoot(t, nil, "list", "-m", "-f", "{{.Dir}}", module.Path))
			if len(texts) == 0 {
				t.Errorf("%s has no license file", module.Path)
			}
			for _, legal := range texts {
				if !strings.Contains(shipped, legal) {
					t.Errorf("%s: a text of %s is missing", system, module.Path)
				}
			}
		}
	}
}

// Tests in deploy/artifacts check the licenses in archives and packages.
func TestImageBringsTheLicenses(t *testing.T) {
	copied := false
	stages := dockerfile(t)
	for _, command := range stages[len(stages)-1].Commands {
		if c, ok := command.(*instructions.CopyCommand); ok && c.DestPath == "/licenses" && c.SourcePaths[0] == "/out/licenses" {
			copied = true
		}
	}
	if !copied {
		t.Error("the image has no licenses")
	}
}

func TestImageBuildMakesTheLicenses(t *testing.T) {
	out := build(t, runtime.GOOS+"/"+runtime.GOARCH, "")
	for name, want := range map[string]string{
		"LICENSE": "MIT License", notices: "github.com/spf13/cobra", "ca-certificates": "Mozilla",
	} {
		if text, err := os.ReadFile(filepath.Join(out, "licenses", name)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
