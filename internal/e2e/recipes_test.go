package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// snippet is a fenced code block of a document.
type snippet struct{ language, text string }

var fenced = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")

func snippets(t *testing.T, path string) []snippet {
	t.Helper()
	var found []snippet
	for _, m := range fenced.FindAllStringSubmatch(program.ReadFile(t, path), -1) {
		found = append(found, snippet{m[1], m[2]})
	}
	return found
}

// wants converts a document's example output to a pattern. "…" matches anything, and more
// text may follow.
func wants(shown string) *regexp.Regexp {
	lines := strings.Split(strings.TrimSuffix(shown, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*")
	}
	return regexp.MustCompile("(?m)^" + strings.Join(lines, "\n"))
}

// kitchen is an environment in which recipes are run.
type kitchen struct {
	t       *testing.T
	dir     string
	environ []string
	replace *strings.Replacer
}

func newKitchen(t *testing.T) *kitchen {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	secrets := t.TempDir()
	for name, text := range map[string]string{"client-id": simulator.DefaultClientID, "client-secret": simulator.DefaultClientSecret} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A wrapper that runs the program with the simulator as Mimecast.
	env, bin := program.Environ(t, sim), t.TempDir()
	wrapper := "#!/bin/sh\nexport " + strings.Join(env[2:4], " ") + "\nexec " + program.Binary() + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "mimecast-proxy"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	return &kitchen{
		t: t, dir: t.TempDir(),
		environ: append(env, "PATH="+strings.Join([]string{bin, filepath.Dir(program.Python()), os.Getenv("PATH")}, ":"), "HOME="+t.TempDir(), "LANG=C.UTF-8"),
		replace: strings.NewReplacer("http://127.0.0.1:8080", p.URL, "/etc/mimecast-proxy", secrets,
			// Scripts must use their default values here.
			"${MIMECAST_BASE_URL:-", "${NOT_SET:-"),
	}
}

// try runs a block and returns its output.
func (k *kitchen) try(b snippet) string {
	k.t.Helper()
	text := k.replace.Replace(b.text)
	cmd := exec.CommandContext(k.t.Context(), "sh", "-euc", text)
	if b.language == "python" {
		cmd = exec.CommandContext(k.t.Context(), program.Python(), "-c", text)
	}
	cmd.Dir, cmd.Env = k.dir, k.environ
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Errorf("%v\n%s\n%s", err, b.text, out)
	}
	return string(out)
}

// missing returns which tool for the recipes this machine lacks, or "".
func missing() string {
	for _, tool := range []string{"sh", "curl", "jq", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	if err := exec.Command(program.Python(), "-c", "import requests").Run(); err != nil {
		return "python3-requests"
	}
	return ""
}

func TestRecipesWorkAsTheySay(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if tool := missing(); tool != "" {
		t.Skipf("%s is not on this machine", tool)
	}
	recipes, err := fs.Glob(os.DirFS(program.Root()), "docs/recipes/*.md")
	if err != nil || len(recipes) < 6 {
		t.Fatalf("%v %v", recipes, err)
	}
	for _, path := range recipes {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".md"), func(t *testing.T) {
			t.Parallel()
			k := newKitchen(t)
			printed := ""
			for _, b := range snippets(t, path) {
				switch b.language {
				case "sh", "python":
					printed = k.try(b)
				case "text":
					if !wants(b.text).MatchString(printed) {
						t.Errorf("it shows\n%s\nbut what came is\n%.2000s", b.text, printed)
					}
				}
			}
		})
	}
}
