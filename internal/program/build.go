package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Main runs the tests of m and returns their exit code. The program is built when it is
// first needed, in a directory that Main removes.
func Main(m interface{ Run() int }) int {
	defer func() {
		if dir != "" {
			_ = os.RemoveAll(dir) // on failure, the system cleans up its temporary directory
		}
	}()
	return m.Run()
}

var dir string // where the program is built; empty until then

// Binary builds the program on the first call and returns its path. It panics if the build
// fails.
var Binary = sync.OnceValue(func() string {
	path, err := build()
	if err != nil {
		panic(err)
	}
	return path
})

// Root returns the path of the repository. It panics if there is none.
var Root = sync.OnceValue(func() string {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		panic(fmt.Errorf("looking for the module: %w", err))
	}
	return filepath.Dir(strings.TrimSpace(string(mod)))
})

// ReadFile returns the text of a file of the repository; name is relative to Root.
func ReadFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func build() (string, error) {
	// Looking at main.go makes go test's cache depend on the program. Package main is not
	// among the packages that the tests import.
	if _, err := os.Stat(filepath.Join(Root(), "main.go")); err != nil {
		return "", fmt.Errorf("looking for the program's source: %w", err)
	}
	var err error
	if dir, err = os.MkdirTemp("", "mimecast-proxy"); err != nil {
		return "", fmt.Errorf("making a directory for the program: %w", err)
	}
	path := filepath.Join(dir, "mimecast-proxy")
	return path, Build(path)
}

// Build builds the program at path with the flags of a release.
func Build(path string) error {
	flags := []string{"-trimpath", "-ldflags=-s -w"}
	// go run caches the linked program, so that the next package's tests need not link it
	// again. With -exec=cp, it copies the program instead of running it.
	args := slices.Concat([]string{"run"}, flags, []string{"-exec=cp", ".", path})
	if _, err := exec.LookPath("cp"); err != nil {
		args = slices.Concat([]string{"build"}, flags, []string{"-o", path, "."})
	}
	cmd := exec.Command("go", args...) //nolint:noctx // the build always ends
	cmd.Dir = Root()
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return nil
}

// Python returns the path of the real python3. The python3 in PATH may be a wrapper script
// that takes a second. If there is none, Python returns the name.
var Python = sync.OnceValue(func() string {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if path := strings.TrimSpace(string(out)); err == nil && path != "" {
		return path
	}
	return "python3"
})

// ShortDir returns a directory for sockets, whose paths are limited to about 100 bytes.
// It is removed when t ends.
func ShortDir(t testing.TB) string {
	t.Helper()
	path, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}
