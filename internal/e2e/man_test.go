package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cpuguy83/go-md2man/v2/md2man"

	"mimecast-proxy/config"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

const manPage = "docs/mimecast-proxy.1"

// help returns the help of the program or of one of its commands.
func help(t *testing.T, command ...string) string {
	t.Helper()
	p := program.Start(t, nil, append([]string{"help"}, command...)...)
	if code := p.Exit(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	return p.Stdout.String()
}

var (
	commandLine = regexp.MustCompile(`(?m)^  ([\w-]+) +(.+)$`)
	usageLine   = regexp.MustCompile(`(?m)^Usage:\n  mimecast-proxy (.+)$`)
)

// manual returns the manual page in Markdown, generated from the help.
func manual(t *testing.T) string {
	text := help(t)
	about, _, _ := strings.Cut(text, "\n\nUsage:")
	_, list, _ := strings.Cut(text, "\nAvailable Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var b strings.Builder
	fmt.Fprintf(&b, "%% MIMECAST-PROXY 1\n\n# NAME\n\nmimecast-proxy - An authenticating proxy for the Mimecast API 2.0\n\n# SYNOPSIS\n\n**mimecast-proxy** [*command*]\n\n# DESCRIPTION\n\n%s\n\n# COMMANDS\n\n", about)
	for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
		if name := m[1]; name != "help" && name != "completion" { // added by the library
			describe(&b, help(t, name), m[2])
		}
	}
	b.WriteString("# ENVIRONMENT\n\n")
	for line := range strings.Lines(config.Markdown()) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if name, ok := strings.CutPrefix(cells[0], "| `"); ok && len(cells) == 3 {
			fmt.Fprintf(&b, "**%s**\n: %s (default: %s)\n\n", strings.ReplaceAll(name, "`", ""), strings.TrimSuffix(cells[2], " |"), cells[1])
		}
	}
	b.WriteString("# EXIT STATUS\n\n0 after a clean drain, 1 on a failure while running, 2 on a configuration that cannot be used; **run** exits as its command did.\n")
	return b.String()
}

// describe adds a command from its help and its line in the list of commands.
func describe(b *strings.Builder, text, short string) {
	usage := usageLine.FindStringSubmatch(text)[1]
	fmt.Fprintf(b, "**%s**\n: %s.", strings.TrimSpace(strings.ReplaceAll(usage, "[flags]", "")), short)
	if long, _, _ := strings.Cut(text, "\n\nUsage:"); long != short {
		fmt.Fprintf(b, " %s", strings.ReplaceAll(long, "\n", " "))
	}
	b.WriteString("\n\n")
	_, flags, _ := strings.Cut(text, "\nFlags:\n")
	for line := range strings.Lines(flags) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "--") {
			fmt.Fprintf(b, "    %s\n\n", line)
		}
	}
}

func TestManPageSaysWhatHelpSays(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	page := md2man.Render([]byte(manual(t)))
	if *update {
		if err := os.WriteFile(filepath.Join(program.Root(), manPage), page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if program.ReadFile(t, manPage) != string(page) {
		t.Errorf("%s is not what the program says of itself: go test ./internal/e2e -run TestManPage -update", manPage)
	}
	for _, word := range []string{"MIMECAST_CLIENT_SECRET", "PROXY_SHUTDOWN_DELAY", "healthcheck", "127.0.0.1:8080"} {
		if !bytes.Contains(bytes.ReplaceAll(page, []byte(`\`), nil), []byte(word)) {
			t.Errorf("no word about %s", word)
		}
	}
}
