package faults_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

// row is a row of the table in docs/reliability.md, with the test that checks it.
type row struct {
	fault string
	// What the client gets, what the log and metrics show, and when the proxy recovers.
	client, signs, recovers string
	test                    func(t *testing.T)
	by                      string // package.Test, if the test is in another package
}

// long are the rows that wait for half a minute. TestFaults starts them before the others.
var long = []string{"hangs forever", "HTTP/2: connection goes silent"}

type chapter struct {
	title string
	rows  []row
}

var chapters = []chapter{
	{"The token endpoint", tokenRows},
	{"Mimecast", mimecastRows},
	{"Mimecast's rate limit", limitRows},
	{"The client", clientRows},
	{"This machine", machineRows},
}

var (
	update = flag.Bool("update", false, "write the matrix into docs/reliability.md")
	full   = flag.Bool("full", false, "upload as much as the rows say, not a quarter of it")
)

// share returns how many of a row's n uploads the test makes.
func share(n int) int {
	if *full {
		return n
	}
	return n / 4
}

func TestMain(m *testing.M) {
	suite.Parallel(12)
	// Only name lookups are affected: the tests use numeric addresses.
	end, err := nowhere()
	if err != nil {
		panic(err)
	}
	code := program.Main(m)
	end()
	if err = goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestFaults(t *testing.T) {
	t.Parallel()
	// Of the parallel subtests that wait, Go starts the last one first.
	for _, last := range []bool{false, true} {
		for _, c := range chapters {
			for _, r := range c.rows {
				if r.test != nil && slices.Contains(long, r.fault) == last {
					t.Run(c.title+"/"+r.fault, func(t *testing.T) { t.Parallel(); r.test(t) })
				}
			}
		}
	}
}

const (
	doc      = "../../docs/reliability.md"
	docBegin = "<!-- The matrix, written by: go test ./internal/faults -run Doc -update -->\n"
	docEnd   = "<!-- The end of the matrix. -->\n"
)

// TestDocHasTheRowsThatAreTested compares the table in the docs with the rows here. Each
// row must have a test.
func TestDocHasTheRowsThatAreTested(t *testing.T) {
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, began := strings.Cut(string(text), docBegin)
	_, after, ended := strings.Cut(rest, docEnd)
	if !began || !ended {
		t.Fatal("the doc has no place for the matrix")
	}
	want := before + docBegin + markdown(t) + docEnd + after
	if *update {
		if err := os.WriteFile(doc, []byte(want), 0o644); err != nil { //nolint:gosec // a public document
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("the matrix in %s is not the one that is tested: run go test ./internal/faults -run Doc -update", doc)
	}
}

func markdown(t *testing.T) string {
	var b strings.Builder
	for _, c := range chapters {
		fmt.Fprintf(&b, "\n### %s\n\n| fault | client | log and metrics | recovers | test |\n|---|---|---|---|---|\n", c.title)
		seen := map[string]bool{}
		for _, r := range c.rows {
			if seen[r.fault] || (r.test == nil) == (r.by == "") || r.client == "" || r.signs == "" || r.recovers == "" {
				t.Errorf("%s/%s: not a whole row, with one test", c.title, r.fault)
			}
			seen[r.fault] = true
			by := "`faults`"
			if r.by != "" {
				exists(t, r.by)
				by = "`" + r.by + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.fault, r.client, r.signs, r.recovers, by)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// exists checks that a test of another package exists. The program's own package is main.
func exists(t *testing.T, name string) {
	dir, test, _ := strings.Cut(name, ".")
	if dir == "main" {
		dir = "."
	}
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test+"(") {
			return
		}
	}
	t.Errorf("there is no test %s", name)
}
