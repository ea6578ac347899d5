package deploy_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func ignorePatterns(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return patterns
}

func ignoredByBuild(t *testing.T) func(name string) bool {
	t.Helper()
	matcher, err := patternmatcher.New(ignorePatterns(t, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool {
		t.Helper()
		ignored, err := matcher.MatchesOrParentMatches(name)
		if err != nil {
			t.Fatal(err)
		}
		return ignored
	}
}

// buildContext copies the files that .dockerignore allows in a build.
func buildContext(t *testing.T) string {
	t.Helper()
	ignored, to := ignoredByBuild(t), t.TempDir()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || !d.Type().IsRegular() || ignored(name) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// credentialFiles returns the file names that the documentation and compose.yaml suggest
// for credentials next to the sources.
func credentialFiles(t *testing.T) []string {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithProfiles([]string{"real"}), cli.WithName("mimecast-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, secret := range project.Secrets {
		names = append(names, filepath.Base(secret.File))
	}
	inText := regexp.MustCompile(`--from-file=([a-z][\w.-]*)|> ([\w.-]*(?:key|secret|id))\b`)
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/recipes/*.md", "k8s/*/*.yaml", "deploy/helm/*/templates/*.*", "deploy/helm/*/templates/tests/*"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range inText.FindAllStringSubmatch(string(text), -1) {
				names = append(names, m[1]+m[2])
			}
		}
	}
	for _, name := range []string{"mimecast_id", "mimecast_secret", "client-id", "client-secret", "api-key"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s was not found among %v", name, names)
		}
	}
	return names
}

func TestCredentialsReachNeitherTheImagesBuildNorACommit(t *testing.T) {
	ignored := ignoredByBuild(t)
	names := append(credentialFiles(t), "ca-key.pem", "tls.key", ".env", ".env.local", "production.secret")
	for _, name := range names {
		for _, dir := range []string{"", "admin", "admin/web", "deploy/licenses", "docs", "k8s/gateway"} {
			path := filepath.Join(dir, name)
			if !ignored(path) {
				t.Errorf(".dockerignore lets %s in", path)
			}
			cmd := exec.CommandContext(t.Context(), "git", "check-ignore", "--quiet", "--no-index", path)
			cmd.Dir = root
			if err := cmd.Run(); err != nil {
				t.Errorf("git does not ignore %s: %v", path, err)
			}
		}
	}
	for _, name := range []string{"notes", "dump.json", "secrets/prod", ".git/config", "new-directory/file.go"} {
		if !ignored(name) {
			t.Errorf(".dockerignore lets %s in, which it does not name", name)
		}
	}
}

func TestIgnoreFilesNameTheSameCredentials(t *testing.T) {
	section := func(file, prefix string) []string {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		_, list, ok := strings.Cut(string(text), "# Credentials")
		if !ok {
			t.Fatalf("%s has no list of credentials", file)
		}
		_, list, _ = strings.Cut(list, "\n")
		var names []string
		for line := range strings.Lines(list) {
			names = append(names, strings.TrimPrefix(strings.TrimSpace(line), prefix))
		}
		return names
	}
	if git, docker := section(".gitignore", ""), section(".dockerignore", "**/"); !slices.Equal(git, docker) {
		t.Errorf("git ignores %v, the image's build %v", git, docker)
	}
}

func TestBuildContextHasTheWholeProgram(t *testing.T) {
	ignored := ignoredByBuild(t)
	for _, system := range []string{"linux", "windows", "darwin"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f",
			`{{if .Module}}{{if .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}{{end}}`, ".", "./deploy/licenses")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "GOOS="+system)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		top, err := filepath.Abs(root)
		if err != nil {
			t.Fatal(err)
		}
		files := strings.Fields(string(out))
		if len(files) < 50 {
			t.Errorf("%s: only %d files", system, len(files))
		}
		for _, file := range files {
			name, err := filepath.Rel(top, file)
			if err != nil || ignored(name) {
				t.Errorf("%s is not let in: name its directory in .dockerignore (%v)", name, err)
			}
		}
	}
}
