package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"

	"mimecast-proxy/app"
	"mimecast-proxy/config"
)

const manPage = "docs/mimecast-proxy.1"

// manual is the page in Markdown, from the definitions that help prints.
func manual() string {
	root := commands(app.Env{})
	var b strings.Builder
	fmt.Fprintf(&b, "%% MIMECAST-PROXY 1\n\n# NAME\n\nmimecast-proxy - %s\n\n# SYNOPSIS\n\n**mimecast-proxy** [*command*]\n\n# DESCRIPTION\n\n%s\n\n# COMMANDS\n\n", root.Short, root.Long)
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			describe(&b, cmd)
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

func describe(b *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(b, "**%s**\n: %s.", strings.ReplaceAll(cmd.Use, "[flags]", ""), cmd.Short)
	if cmd.Long != "" && !strings.Contains(cmd.Long, "completion") {
		fmt.Fprintf(b, " %s", strings.ReplaceAll(cmd.Long, "\n", " "))
	}
	b.WriteString("\n\n")
	for line := range strings.Lines(cmd.NonInheritedFlags().FlagUsages()) {
		fmt.Fprintf(b, "    %s\n\n", strings.TrimSpace(line))
	}
}

func TestManPageSaysWhatHelpSays(t *testing.T) {
	page := md2man.Render([]byte(manual()))
	if *update {
		if err := os.WriteFile(manPage, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(manPage)
	if err != nil || !bytes.Equal(written, page) {
		t.Errorf("%v: %s is not what the program says of itself: go test -run TestManPage . -update", err, manPage)
	}
	for _, word := range []string{"MIMECAST_CLIENT_SECRET", "PROXY_SHUTDOWN_DELAY", "healthcheck", "127.0.0.1:8080"} {
		if !bytes.Contains(bytes.ReplaceAll(page, []byte(`\`), nil), []byte(word)) {
			t.Errorf("no word about %s", word)
		}
	}
}
