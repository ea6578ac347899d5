//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const oncall = "docs/oncall.md"

// alertRule is a rule's name and its row of the table, as in docs/oncall.md.
type alertRule struct{ name, row string }

var ruleParts = regexp.MustCompile(`(?s)- alert: (\w+)\n.*?\n        for: (\w+)\n.*?severity: (\w+)\n`)

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var all []alertRule
	for _, m := range ruleParts.FindAllStringSubmatch(program.ReadFile(t, monitoring+"/alerts.yaml"), -1) {
		all = append(all, alertRule{m[1], fmt.Sprintf("\n| [%s](#%s) | %s | %s | ", m[1], strings.ToLower(m[1]), m[3], m[2])})
	}
	return all
}

// runbookSections returns the sections of docs/oncall.md, by alert.
func runbookSections(t *testing.T) map[string]string {
	t.Helper()
	sections := map[string]string{}
	for _, part := range strings.Split(program.ReadFile(t, oncall), "\n### ")[1:] {
		part, _, _ = strings.Cut(part, "\n## ")
		name, text, _ := strings.Cut(part, "\n")
		sections[name] = text
	}
	return sections
}

func TestEveryAlertHasARunbook(t *testing.T) {
	t.Parallel()
	doc, rules, sections := program.ReadFile(t, oncall), alertRules(t), runbookSections(t)
	if len(rules) == 0 || len(rules) != len(sections) || len(rules) != strings.Count(doc, "\n| [MimecastProxy") {
		t.Errorf("%d alerts, %d sections, %d lines of the table", len(rules), len(sections), strings.Count(doc, "\n| [MimecastProxy"))
	}
	for _, rule := range rules {
		if !strings.Contains(doc, rule.row) {
			t.Errorf("the table has no %q", rule.row)
		}
		if !strings.Contains(program.ReadFile(t, monitoring+"/alerts.yaml"), "runbook_url: docs/oncall.md#"+strings.ToLower(rule.name)+"\n") {
			t.Errorf("%s leads to no section", rule.name)
		}
		text, ok := sections[rule.name]
		if !ok {
			t.Errorf("%s has no section", rule.name)
		}
		for _, part := range []string{"**Meaning:**", "**Impact:**", "**Escalate**"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %s", rule.name, part)
			}
		}
		for _, block := range shellBlocks(text) {
			if n := strings.Count(block, "\n"); n != 3 {
				t.Errorf("%s: %d commands in place of 3:\n%s", rule.name, n, block)
			}
		}
		if n := strings.Count(text, "\n"); n > 60 {
			t.Errorf("%s: %d lines are more than a screen", rule.name, n)
		}
	}
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

func shellBlocks(text string) []string {
	var blocks []string
	for _, m := range shellBlock.FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// causesTable returns a table of all codes and conditions that a health judgment can name.
func causesTable() string {
	var b strings.Builder
	b.WriteString("| cause | component | what happened | what to do |\n|---|---|---|---|\n")
	all := event.Conditions()
	for _, k := range event.Kinds() {
		all = append(all, event.Cause(k.Code).Condition())
	}
	byComponent := func(a, b event.Condition) int {
		return slices.Index(event.Components, a.Component) - slices.Index(event.Components, b.Component)
	}
	slices.SortStableFunc(all, byComponent)
	for _, c := range all {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Cause, c.Component, quoteSettings(c.Summary), quoteSettings(c.Remedy))
	}
	return b.String()
}

var settingInText = regexp.MustCompile(`\b(PROXY|MIMECAST|HTTPS)_[A-Z_]+\b`)

func quoteSettings(text string) string { return settingInText.ReplaceAllString(text, "`$0`") }

func TestRunbookHasTheCauses(t *testing.T) {
	const begin, end = "<!-- causes: kept by a test -->\n", "\n<!-- end of causes -->"
	doc := program.ReadFile(t, oncall)
	before, rest, found := strings.Cut(doc, begin)
	_, after, ended := strings.Cut(rest, end)
	want := before + begin + "\n" + causesTable() + end + after
	switch {
	case !found || !ended:
		t.Errorf("%s has no place for the causes", oncall)
	case doc == want:
	case !*update:
		t.Errorf("%s does not have this table; run with -update:\n%s", oncall, causesTable())
	default:
		if err := os.WriteFile(filepath.Join(program.Root(), oncall), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shims replace the programs that need a cluster or systemd. They check the arguments
// that the runbook uses, and forward the command to the real proxy.
var shims = map[string]string{
	"kubectl": `
case "$1" in
exec) [ "$2 $3 $4 $5 $6 $7 $8" = "-n mimecast mimecast-proxy-0 -c mimecast-proxy -- /mimecast-proxy" ] || exit 9
	shift 8; exec "$PROGRAM" "$@" ;;
logs) [ "$2 $3 $4 $5 $6" = "-n mimecast mimecast-proxy-0 -c mimecast-proxy" ] || exit 9
	exec cat "$LOG" ;;
get) [ "$2" = --raw ] || { [ "$(echo "$*" | grep -c -e '-n mimecast')" = 1 ]; exit; }
	path=${3#/api/v1/namespaces/mimecast/pods/mimecast-proxy-0:19090/proxy}
	[ "$path" = /metrics ] || exit 9
	exec curl -sS "http://$ADMIN$path" ;;
port-forward) [ "$*" = "port-forward -n mimecast mimecast-proxy-0 19090" ] ;;
*) exit 9 ;;
esac`,
	"journalctl":  `[ "$1 $2 $3 $4" = "-u mimecast-proxy -o cat" ] && exec cat "$LOG"`,
	"systemctl":   `[ "$2" = mimecast-proxy ]`,
	"timedatectl": `[ "$1" = status ]`,
}

// troubled runs a proxy with every problem that the runbook's commands look for.
func troubled(t *testing.T) *program.Program {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/identity/limited", Status: http.StatusTooManyRequests, Header: map[string]string{"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "600000"}})
	p := program.Serve(t, sim, "PROXY_CLIENTS_FILE="+clientsFile(t), "PROXY_MAX_REQUESTS=1")
	as := func(path string, status int) {
		t.Helper()
		program.Await(t, path, func() bool { // a slot becomes free slightly after the response
			res, _ := p.Must("GET", path, "", "X-Proxy-Key", clientKey)
			return res.StatusCode == status
		})
	}
	as("/identity/limited", http.StatusTooManyRequests)
	as("/siem/v1/events/cg", http.StatusForbidden)
	p.Must("GET", "/identity/limited", strings.Repeat("x", 200_000), "X-Proxy-Key", clientKey)
	gate := make(chan struct{})
	sim.AddFault(simulator.Fault{Path: "/identity/held", Status: http.StatusOK, Until: gate})
	ended := make(chan error, 1)
	inFlight := func(n float64) {
		t.Helper()
		program.Await(t, "in-flight requests", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == n })
	}
	inFlight(0)
	go func() {
		_, _, err := p.Do("GET", "/identity/held", nil, "X-Proxy-Key", clientKey)
		ended <- err
	}()
	inFlight(1)
	as("/identity/whoami", http.StatusServiceUnavailable)
	close(gate)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	sim.AddFault(simulator.Fault{Status: http.StatusInternalServerError})
	for range 100 { // most requests of the last minute
		as("/identity/whoami", http.StatusInternalServerError)
	}
	p.Stderr.Await(t, "the change and an error", func(log string) bool {
		return strings.Contains(log, `"health changed"`) && strings.Contains(log, `"level":"error"`) && strings.Contains(log, `"bytes_in":200000`)
	})
	return p
}

// Each runbook command must parse. Those that query the proxy must find what they look for.
func TestRunbookCommandsRun(t *testing.T) {
	t.Parallel()
	suite.Slow(t)
	for _, tool := range []string{"sh", "curl", "grep"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	p := troubled(t)
	dir := t.TempDir()
	for name, text := range shims {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil { //nolint:gosec // must be executable
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte(p.Stderr.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := append(slices.Clone(p.Cmd.Env), "PATH="+dir+":"+os.Getenv("PATH"), "PROGRAM="+program.Binary(), "LOG="+log,
		"ADMIN="+p.Admin, "PROXY_ADMIN_LISTEN="+p.Admin, "NAMESPACE=mimecast", "POD=mimecast-proxy-0")
	commands := 0
	for _, block := range shellBlocks(program.ReadFile(t, oncall)) {
		for command := range strings.Lines(block) {
			commands++
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, "127.0.0.1:9090", p.Admin))
			cmd.Env = environ
			out, err := cmd.CombinedOutput()
			// The check must fail here, as the runbook says.
			if failed := strings.Contains(string(out), "500"); err != nil && (!strings.Contains(command, "/mimecast-proxy check") || !failed) {
				t.Errorf("%s%v\n%s", command, err, out)
			}
			if strings.Contains(command, "healthcheck") && !strings.HasPrefix(string(out), "ready, but down since ") {
				t.Errorf("%s%s", command, out)
			}
		}
	}
	if commands < 60 {
		t.Errorf("only %d commands", commands)
	}
}
