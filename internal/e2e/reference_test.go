package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/config"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// open are the labels with many possible values, which the table does not list.
var open = []string{"method", "code", "route", "version", "revision", "goversion", "le", "account", "client", "function"}

// metricsTable returns a table of the program's own metrics, from the programs' /metrics.
func metricsTable(t *testing.T, programs ...*program.Program) string {
	t.Helper()
	rows := map[string]string{}
	for _, p := range programs {
		_, text := p.AdminGet("/metrics")
		have := seriesOf(p.Metrics())
		help := ""
		for line := range strings.Lines(text) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(f) < 4 || !strings.HasPrefix(f[2], "mimecast_proxy_") {
				continue
			}
			if f[1] == "HELP" {
				help = f[3]
				continue
			}
			name := strings.TrimPrefix(f[2], "mimecast_proxy_")
			if f[1] == "TYPE" && rows[name] == "" {
				rows[name] = fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, f[3], labelsOf(have[f[2]]), help)
			}
		}
	}
	table := "| metric | type | labels | what it is |\n|---|---|---|---|\n"
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		table += rows[name]
	}
	return table
}

func labelsOf(sets []map[string]string) string {
	values := map[string]map[string]bool{}
	for _, set := range sets {
		for name, v := range set {
			if values[name] == nil {
				values[name] = map[string]bool{}
			}
			if v != "" {
				values[name][v] = true
			}
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		label := "`" + name + "`"
		if !slices.Contains(open, name) {
			label += ": " + strings.Join(slices.Sorted(maps.Keys(values[name])), ", ")
		}
		all = append(all, label)
	}
	return strings.Join(all, "; ")
}

// checkTable compares a table with the one between the markers in a document. With
// -update, it writes the table there.
func checkTable(t *testing.T, doc, name, table string) {
	t.Helper()
	begin, end := "<!-- "+name+": kept by a test -->\n\n", "\n<!-- end of "+name+" -->"
	text := program.ReadFile(t, doc)
	before, rest, found := strings.Cut(text, begin)
	kept, after, ended := strings.Cut(rest, end)
	switch {
	case !found || !ended:
		t.Errorf("%s has no place for the %s", doc, name)
	case kept == table:
	case !*update:
		t.Errorf("%s does not have this table; run go test ./internal/e2e -run TestReference -update:\n%s", doc, table)
	default:
		if err := os.WriteFile(filepath.Join(program.Root(), doc), []byte(before+begin+table+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReferenceHasEveryMetric(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	checkTable(t, "docs/operations.md", "metrics", metricsTable(t, exercise(t), exerciseClients(t)))
}

// fieldsOf returns all fields of the log lines that have one of the messages.
func fieldsOf(t *testing.T, p *program.Program, messages ...string) map[string]bool {
	fields := map[string]bool{}
	for text := range strings.Lines(p.Stderr.String()) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && slices.Contains(messages, fmt.Sprint(line["msg"])) {
			for name := range line {
				fields[name] = true
			}
		}
	}
	return fields
}

var (
	fieldTable = regexp.MustCompile(`(?m)^\| field \| what it is \|\n\|---\|---\|\n((?:\|.*\n)+)`)
	fieldCell  = regexp.MustCompile(`(?m)^\| ([^|]*) \|`)
	inCode     = regexp.MustCompile("`([^`]+)`")
)

func TestReferenceHasEveryFieldOfTheLog(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	p := exercise(t)
	if res, _ := p.Must("GET", "/identity/whoami", "", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	p.Stderr.Await(t, "the last line", func(text string) bool { return strings.Contains(text, "trace_id") })
	for range 3 { // at least two of them share a line
		p.Must("GET", "/", "", "Origin", "https://evil.example")
	}
	p.Stderr.Await(t, "the line of several", func(text string) bool { return strings.Contains(text, "suppressed") })
	sim := program.Simulate(t, simulator.Options{ClientSecret: "another"})
	refused := program.Start(t, program.Environ(t, sim))
	refused.Stderr.Await(t, "the refusal", func(text string) bool { return strings.Contains(text, "token request failed") })
	tokens := fieldsOf(t, p, "token renewed")
	maps.Copy(tokens, fieldsOf(t, refused, "token request failed"))

	requests := fieldsOf(t, p, "request")
	clients := exerciseClients(t)
	clients.Stderr.Await(t, "the line of a request that waited too long", func(text string) bool { return strings.Contains(text, `"limit":`) })
	maps.Copy(requests, fieldsOf(t, clients, "request"))

	tables := fieldTable.FindAllStringSubmatch(program.ReadFile(t, "docs/operations.md"), -1)
	if len(tables) != 2 {
		t.Fatalf("%d tables of fields", len(tables))
	}
	for i, have := range []map[string]bool{requests, tokens} {
		listed := map[string]bool{}
		for _, cell := range fieldCell.FindAllStringSubmatch(tables[i][1], -1) {
			for _, name := range inCode.FindAllStringSubmatch(cell[1], -1) {
				listed[name[1]] = true
			}
		}
		if !maps.Equal(have, listed) {
			t.Errorf("the log has %v, the reference %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(listed)))
		}
	}
}

func TestReferenceHasTheVariables(t *testing.T) {
	t.Parallel()
	checkTable(t, "docs/reference.md", "variables", config.Markdown())
}

// TestReferenceHasEveryCommand compares the table of commands with the help.
func TestReferenceHasEveryCommand(t *testing.T) {
	t.Parallel()
	_, list, _ := strings.Cut(help(t), "\nAvailable Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	_, section, _ := strings.Cut(program.ReadFile(t, "docs/reference.md"), "\n## Commands\n")
	section, _, _ = strings.Cut(section, "\n## ")
	commands := commandLine.FindAllStringSubmatch(list, -1)
	if len(commands) < 10 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	for _, m := range commands {
		if m[1] != "completion" && !regexp.MustCompile("`(?:mimecast-proxy )?"+m[1]+"\\b").MatchString(section) {
			t.Errorf("docs/reference.md has no command %s", m[1])
		}
	}
}
