//go:build unix

package attack

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`([a-z0-9]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
)

// existing returns the module's tests as package.Name. The program's own package is main.
func existing(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg := filepath.Base(filepath.Dir(path))
		if filepath.Dir(path) == root {
			pkg = "main"
		}
		for _, name := range testFunc.FindAllStringSubmatch(string(source), -1) {
			found[pkg+"."+name[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestSecurityClaimsNameTestsThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	doc, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests, claims := existing(t, root), 0
	for line := range strings.Lines(string(doc)) {
		named := testName.FindAllStringSubmatch(line, -1)
		for _, name := range named {
			if !tests[name[1]+"."+name[2]] {
				t.Errorf("there is no test %s.%s", name[1], name[2])
			}
		}
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| claim ") {
			continue
		}
		claims++
		if len(named) == 0 {
			t.Errorf("no test holds: %s", line)
		}
	}
	if claims < 20 {
		t.Errorf("only %d claims were found", claims)
	}
}
