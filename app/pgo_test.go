package app

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// profiledFunction matches a function of this module in the output of pprof. The groups are its
// package, and its name with any receiver. For a closure it matches the enclosing function.
var profiledFunction = regexp.MustCompile(`mimecast-proxy/([\w/]+)\.((?:\(\*\w+\)\.|\w+\.)?\w+)`)

// The compiler optimizes by the profile in default.pgo, and silently ignores functions that no
// longer exist. This test fails if there are too many of those.
func TestProfileIsOfTheCodeAsItIs(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount", "10000", "-nodefraction", "0", "../default.pgo").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]map[string]bool{} // by package
	named, gone := 0, map[string]bool{}
	for _, m := range profiledFunction.FindAllStringSubmatch(string(out), -1) {
		folder, name := m[1], m[2]
		if there[folder] == nil {
			there[folder] = functionsOf(t, filepath.Join("..", folder))
		}
		plain, _, _ := strings.Cut(name, ".") // a closure in a function looks like a method
		if named++; !there[folder][name] && !there[folder][plain] {
			gone[folder+"."+name] = true
		}
	}
	t.Logf("%d of %d functions are gone", len(gone), named)
	if named == 0 || 10*len(gone) > named {
		t.Errorf("default.pgo is old: it names %d functions of the proxy, and of those are gone %v. Write it anew: go -C bench run . -only profile",
			named, slices.Sorted(maps.Keys(gone)))
	}
}

// functionsOf returns the functions and methods of a package, named as in a profile.
func functionsOf(t *testing.T, folder string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	files, err := os.ReadDir(folder)
	if os.IsNotExist(err) {
		return all
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Ext(file.Name()) != ".go" || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(folder, file.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				all[receiver(fn)+fn.Name.Name] = true
			}
		}
	}
	return all
}

// receiver returns a method's receiver type and a dot, or an empty string for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	switch of := fn.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return "(*" + types.ExprString(of.X) + ")."
	default:
		return types.ExprString(of) + "."
	}
}
