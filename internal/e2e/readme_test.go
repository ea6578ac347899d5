package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const (
	readme           = "README.md"
	readmeWords      = 700
	wordsInASentence = 20
)

var (
	anyFence    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	generated   = regexp.MustCompile(`(?is)<!-- (?:\w+: kept by a test|The matrix,).*?<!-- (?:end of|The end of).*?-->`)
	linkTarget  = regexp.MustCompile(`\]\([^)]*\)`)
	listItem    = regexp.MustCompile(`^(?:[-*]|\d+\.) |^#+ `)
	sentenceEnd = regexp.MustCompile(`[.!?][*)]* `)
)

// texts returns a document's paragraphs, list items, headings and table cells, without code
// blocks and link targets.
func texts(markdown string) []string {
	var found, paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			found = append(found, strings.Join(paragraph, " "))
		}
		paragraph = nil
	}
	for line := range strings.Lines(linkTarget.ReplaceAllString(anyFence.ReplaceAllString(markdown, ""), "]")) {
		switch line = strings.TrimSpace(line); {
		case line == "":
			end()
		case strings.HasPrefix(line, "|"):
			end()
			found = append(found, strings.Split(strings.Trim(line, "|"), " | ")...)
		case listItem.MatchString(line):
			end()
			paragraph = append(paragraph, listItem.ReplaceAllString(line, ""))
		default:
			paragraph = append(paragraph, line)
		}
	}
	end()
	return found
}

// countWords counts the words that contain a letter or a digit.
func countWords(text string) int {
	n := 0
	for _, field := range strings.Fields(text) {
		if strings.ContainsFunc(field, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
			n++
		}
	}
	return n
}

func TestREADMEIsShort(t *testing.T) {
	t.Parallel()
	total := 0
	for _, text := range texts(program.ReadFile(t, readme)) {
		total += countWords(text)
	}
	if total > readmeWords {
		t.Errorf("%s has %d words, more than %d", readme, total, readmeWords)
	}
	if total < readmeWords/2 {
		t.Errorf("only %d words were found", total)
	}
}

// TestSentencesOfDocumentsAreShort skips the parts generated from other texts, and the
// pages for alerts.
func TestSentencesOfDocumentsAreShort(t *testing.T) {
	t.Parallel()
	for _, doc := range documents(t) {
		if doc == "docs/operations.md" || doc == "docs/oncall.md" {
			continue
		}
		for _, text := range texts(generated.ReplaceAllString(program.ReadFile(t, doc), "")) {
			for _, sentence := range sentenceEnd.Split(text, -1) {
				if n := countWords(sentence); n > wordsInASentence {
					t.Errorf("%s: %d words in a sentence, more than %d: %s", doc, n, wordsInASentence, sentence)
				}
			}
		}
	}
}

// runElsewhere are the commands in README.md that CI or the image's tests run.
var runElsewhere = []string{"go build -o mimecast-proxy .", "docker build -t mimecast-proxy .", "go test ./..."}

// TestREADMECommandsWork runs every other command in order. If a block ends with a serving
// proxy, the proxy keeps running for the blocks below.
func TestREADMECommandsWork(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if tool := missing(); tool != "" {
		t.Skipf("%s is not on this machine", tool)
	}
	k := newKitchen(t)
	k.environ = append(k.environ, "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json")
	// The credentials come from files, so these variables must not be set.
	k.environ = slices.DeleteFunc(k.environ, func(v string) bool { return strings.HasPrefix(v, "MIMECAST_CLIENT_") })
	secrets := t.TempDir()
	for name, text := range map[string]string{"client-id": simulator.DefaultClientID, "client-secret": simulator.DefaultClientSecret} {
		if err := os.WriteFile(filepath.Join(secrets, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pasted := regexp.MustCompile(`/dev/stdin (\S+/)([\w-]+)`)
	url, served := "", 0
	for _, b := range snippets(t, readme) {
		if b.language != "sh" {
			continue
		}
		commands := slices.DeleteFunc(strings.Split(strings.TrimSpace(b.text), "\n"), func(c string) bool { return slices.Contains(runElsewhere, c) })
		if len(commands) == 0 {
			continue
		}
		script := pasted.ReplaceAllString(strings.Join(commands, "\n"), filepath.Join(secrets, "$2")+" $1$2")
		script = strings.NewReplacer("./mimecast-proxy", "mimecast-proxy", "http://127.0.0.1:8080", url).Replace(script)
		last := strings.LastIndex(script, "mimecast-proxy ")
		if last < 0 || !slices.Contains([]string{"mimecast-proxy demo", "mimecast-proxy serve"}, script[last:]) {
			k.try(snippet{b.language, script})
			continue
		}
		cmd := exec.Command("sh", "-euc", script[:last]+"exec "+script[last:])
		cmd.Dir, cmd.Env = k.dir, k.environ
		url = program.StartCmd(t, cmd).AwaitServing().AwaitReady().URL
		served++
	}
	if served != 2 {
		t.Errorf("%d commands serve, want the demo's and the account's", served)
	}
	k.try(snippet{"sh", "curl -sS --fail " + url + "/identity/whoami"})
}
