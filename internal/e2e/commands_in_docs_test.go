package e2e

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

var (
	shellText   = regexp.MustCompile("(?ms)^ *```(?:sh|crontab)\n(.*?)^ *```$")
	codeSpan    = regexp.MustCompile("`([^`\n]+)`")
	programCall = regexp.MustCompile(`(?:^|[\s/|])mimecast-proxy(?:\.exe)? ([a-z]+)(?: ([^|>&#\n]*)|$)`)
	longOption  = regexp.MustCompile(`--[a-z][a-z-]*`)
	goTest      = regexp.MustCompile(`go test ([^#\n]*)`)
)

// commandsIn returns the commands in a document's code blocks and code spans.
func commandsIn(markdown string) []string {
	var lines []string
	for _, block := range shellText.FindAllStringSubmatch(markdown, -1) {
		lines = append(lines, strings.Split(strings.ReplaceAll(block[1], "\\\n", " "), "\n")...)
	}
	for _, span := range codeSpan.FindAllStringSubmatch(anyFence.ReplaceAllString(markdown, ""), -1) {
		lines = append(lines, span[1])
	}
	return lines
}

// documents returns all documents except the changelog, which may name removed things.
func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "docs/*.md", "docs/recipes/*.md"} {
		names, err := fs.Glob(os.DirFS(program.Root()), pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		found = append(found, names...)
	}
	return found
}

// TestDocumentsCallTheProgramAsItIs checks that the commands and options in documents
// exist.
func TestDocumentsCallTheProgramAsItIs(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	_, list, _ := strings.Cut(help(t), "\nAvailable Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	helps := map[string]string{"version": ""}
	for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
		helps[m[1]] = help(t, m[1])
	}
	seen := 0
	for _, doc := range documents(t) {
		for _, line := range commandsIn(program.ReadFile(t, doc)) {
			for _, call := range programCall.FindAllStringSubmatch(line, -1) {
				text, known := helps[call[1]]
				if !known {
					t.Errorf("%s: %q: there is no command %s", doc, line, call[1])
					continue
				}
				seen++
				options, _, _ := strings.Cut(call[2], " -- ")
				for _, option := range longOption.FindAllString(options, -1) {
					if option != "--" && !regexp.MustCompile(option+`\b`).MatchString(text) {
						t.Errorf("%s: %q: %s has no option %s", doc, line, call[1], option)
					}
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d calls were found", seen)
	}
}

// TestDocumentsNameTestsThatExist checks each go test command in documents. Its packages
// must exist, and its patterns must match a test or benchmark.
func TestDocumentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	seen := 0
	for _, doc := range documents(t) {
		for _, line := range commandsIn(program.ReadFile(t, doc)) {
			for _, call := range goTest.FindAllStringSubmatch(line, -1) {
				seen++
				var names []string
				words := strings.Fields(call[1])
				for _, word := range words {
					if !strings.HasPrefix(word, "./") || word == "./..." {
						continue
					}
					files, err := filepath.Glob(filepath.Join(program.Root(), word, "*_test.go"))
					if err != nil || len(files) == 0 {
						t.Errorf("%s: %q: no tests in %s: %v", doc, line, word, err)
					}
					for _, file := range files {
						source, err := os.ReadFile(file)
						if err != nil {
							t.Fatal(err)
						}
						for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
							names = append(names, m[1])
						}
					}
				}
				for i, word := range words[:max(len(words)-1, 0)] {
					pattern, _, _ := strings.Cut(strings.Trim(words[i+1], "'"), "/") // after it: subtests
					if word != "-run" && word != "-bench" || pattern == "^$" || len(names) == 0 {
						continue
					}
					if !slices.ContainsFunc(names, regexp.MustCompile(pattern).MatchString) {
						t.Errorf("%s: %q: no test matches %s", doc, line, pattern)
					}
				}
			}
		}
	}
	if seen < 15 {
		t.Errorf("only %d were found", seen)
	}
}

// TestShellBlocksOfDocumentsParse checks the syntax of what a reader pastes.
func TestShellBlocksOfDocumentsParse(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not on this machine")
	}
	for _, doc := range documents(t) {
		for _, block := range shellText.FindAllStringSubmatch(program.ReadFile(t, doc), -1) {
			if strings.HasPrefix(strings.TrimSpace(block[0]), "```crontab") {
				continue
			}
			cmd := exec.CommandContext(t.Context(), bash, "-n")
			cmd.Stdin = strings.NewReader(block[1])
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", doc, err, out, block[1])
			}
		}
	}
}

// TestDocumentsQuoteMessagesOfTheLog checks the messages that a reader searches the log
// for.
func TestDocumentsQuoteMessagesOfTheLog(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	for _, pattern := range []string{"*.go", "*/*.go"} {
		names, err := fs.Glob(os.DirFS(program.Root()), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, "_test.go") {
				sources.WriteString(program.ReadFile(t, name))
			}
		}
	}
	quoted := regexp.MustCompile(`"msg":"([^"]+)"`)
	seen := 0
	for _, doc := range documents(t) {
		for _, m := range quoted.FindAllStringSubmatch(program.ReadFile(t, doc), -1) {
			if seen++; !strings.Contains(sources.String(), `"`+m[1]) {
				t.Errorf("%s: no line of the log has the message %q", doc, m[1])
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d messages were found", seen)
	}
}
