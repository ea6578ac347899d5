package deploy_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func workflows(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*.yml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %v", files, err)
	}
	return files
}

func TestWorkflowsAreValid(t *testing.T) {
	// In its own module graph, because it needs an older YAML library than compose.
	args := []string{"run", "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12", "-no-color"}
	cmd := exec.CommandContext(t.Context(), "go", append(args, workflows(t)...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWorkflowsCallScriptsThatExist(t *testing.T) {
	called := map[string]bool{}
	for _, file := range workflows(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, script := range regexp.MustCompile(`(\.ci|deploy)/(run|portable|release|verify)\b`).FindAllString(string(text), -1) {
			called[script] = true
		}
	}
	if len(called) != 4 {
		t.Errorf("only %v are called", called)
	}
	for script := range called {
		path := filepath.Join(root, script)
		info, err := os.Stat(path)
		if err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s cannot be run: %v", script, err)
		}
		if out, err := exec.CommandContext(t.Context(), "bash", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
}

func TestUpdatesCoverEveryModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, ".github/dependabot.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var updates struct {
		Version int `json:"version"`
		Updates []struct {
			Ecosystem   string   `json:"package-ecosystem"`
			Directory   string   `json:"directory"`
			Directories []string `json:"directories"`
			Schedule    struct {
				Interval string `json:"interval"`
			} `json:"schedule"`
			Groups map[string]struct {
				Patterns []string `json:"patterns"`
			} `json:"groups"`
		} `json:"updates"`
	}
	if err := yaml.UnmarshalStrict(text, &updates); err != nil {
		t.Fatal(err)
	}
	covered := map[string][]string{}
	for _, u := range updates.Updates {
		covered[u.Ecosystem] = append(u.Directories, u.Directory)
	}
	if updates.Version != 2 || len(covered["docker"]) == 0 || len(covered["github-actions"]) == 0 {
		t.Errorf("%+v", updates)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "go.mod" {
			name, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil || !slices.Contains(covered["gomod"], "/"+strings.TrimPrefix(name, ".")) {
				t.Errorf("%s is not updated: %v", path, err)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
