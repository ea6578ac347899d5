// Package words checks that the project's texts do not use forbidden words. Each of these
// has a plainer alternative, which makes the texts easier to read.
package words

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const root = "../.."

// forbidden lists the words and what to write instead. A blank in a pattern also matches a
// line break followed by a comment marker.
var forbidden = []struct{ pattern, instead string }{
	{`whoever`, "name the subject: the proxy, Mimecast, the client or you"},
	{`told|tells`, "report, show, state"},
	{`is over`, "ends, expires"},
	{`of Mimecast's`, "Mimecast's ..., or of Mimecast"},
	{`of its own`, "its own ..., or separate"},
	{`by itself`, "automatically, or nothing"},
	{`at hand`, "available, or nothing"},
	{`mend|mends|mended`, "fix, restore"},
	{`besides`, "also, except, in addition to"},
	{`no [^.:;|]{1,80}, nor`, "no ... and no ..."},
	{`at the most`, "at most"},
}

// exempt lists texts that are not ours to change, or that must quote a forbidden word.
var exempt = []string{
	"internal/words/", // the list above
	"deploy/licenses/",
	"LICENSE",
	"go.sum",
	"bench/go.sum",
	"deploy/artifacts/go.sum",
	"deploy/test/go.sum",
}

func TestTextsUseNoForbiddenWord(t *testing.T) {
	find := finder()
	for _, name := range files(t) {
		if listed(exempt, name) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			continue
		}
		for _, p := range passages(t, name, text) {
			for _, hit := range find(text[p.from:p.to]) {
				line := 1 + bytes.Count(text[:p.from+hit.at], []byte("\n"))
				t.Errorf("%s:%d: %q: write %s", name, line, hit.text, hit.instead)
			}
		}
	}
}

func TestFinderKnowsItsWords(t *testing.T) {
	find := finder()
	for _, text := range []string{
		"Whoever asks", "it tells", "when it is over.", "when it is\n\t// over", "a quota of\n# Mimecast's", "of  its own",
		"no token, nor a secret", "at the\nmost", "Mend it",
	} {
		if len(find([]byte(text))) != 1 {
			t.Errorf("%q: %v", text, find([]byte(text)))
		}
	}
	for _, text := range []string{"foretold", "with its own", "amendment", "it is\n\nover", "is overdue", "no token. Nor a secret"} {
		if hits := find([]byte(text)); len(hits) > 0 {
			t.Errorf("%q: %v", text, hits)
		}
	}
}

// hit is a forbidden word in a text.
type hit struct {
	at            int
	text, instead string
}

// finder returns a function that finds the forbidden words in a text.
func finder() func([]byte) []hit {
	const blank = `(?:[ \t]+|[ \t]*\n[ \t]*(?://|#|\*|<!--)?[ \t]*)`
	var patterns []*regexp.Regexp
	for _, f := range forbidden {
		patterns = append(patterns, regexp.MustCompile(`(?i)\b(?:`+strings.ReplaceAll(f.pattern, " ", blank)+`)\b`))
	}
	return func(text []byte) (hits []hit) {
		for i, p := range patterns {
			for _, at := range p.FindAllIndex(text, -1) {
				hits = append(hits, hit{at[0], string(text[at[0]:at[1]]), forbidden[i].instead})
			}
		}
		return hits
	}
}

// files returns the names of the repository's files. Without git, it returns all files
// below root.
func files(t *testing.T) (names []string) {
	t.Helper()
	if out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output(); err == nil {
		for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		return names
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			name, err := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
			return err
		}
		return nil
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no files: %v", err)
	}
	return names
}

// passage is a part of a file, as byte offsets.
type passage struct{ from, to int }

// passages returns the prose of a file: comments and string literals for Go, otherwise
// everything.
func passages(t *testing.T, name string, text []byte) (found []passage) {
	t.Helper()
	if !strings.HasSuffix(name, ".go") {
		return []passage{{0, len(text)}}
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n ast.Node) {
		found = append(found, passage{set.Position(n.Pos()).Offset, set.Position(n.End()).Offset})
	}
	for _, c := range file.Comments {
		add(c)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			add(l)
		}
		return true
	})
	return found
}

// listed reports whether the list has name or a folder that contains it.
func listed(list []string, name string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		return name == entry || strings.HasSuffix(entry, "/") && strings.HasPrefix(name, entry)
	})
}
