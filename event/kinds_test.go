package event_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"mimecast-proxy/event"
)

var update = flag.Bool("update", false, "write the tables of codes into docs/reference.md and docs/operations.md")

const maxText = 140

func TestTextsAreShortSentences(t *testing.T) {
	for _, k := range event.Kinds() {
		if n := len(k.Summary + ". " + k.Remedy); n > maxText {
			t.Errorf("%s: %d characters", k.Code, n)
		}
		if k.Summary == "" || strings.HasSuffix(k.Summary, ".") || strings.Contains(k.Summary, ". ") {
			t.Errorf("%s: the summary %q is not one clause", k.Code, k.Summary)
		}
		if !strings.HasSuffix(k.Remedy, ".") {
			t.Errorf("%s: the remedy %q is not a sentence", k.Code, k.Remedy)
		}
		for _, sentence := range append(strings.Split(k.Remedy, ". "), k.Summary) {
			if n := len(strings.Fields(sentence)); n > 20 {
				t.Errorf("%s: %d words in %q", k.Code, n, sentence)
			}
		}
	}
}

func TestARowIsOfAResponseOrNot(t *testing.T) {
	for _, k := range event.Kinds() {
		if k.Status != 0 && (k.Status < 400 || k.ErrorType == "") || k.Status == 0 && (k.Retry != event.RetryNever || k.Rejection) {
			t.Errorf("%+v", k)
		}
		if k.Code.Kind() != k || k.Code.Status() != k.Status || event.Kinds()[k.Code.Index()] != k {
			t.Errorf("%s is not found", k.Code)
		}
	}
	if k := event.Code("unheard_of").Kind(); k.Code != event.Other {
		t.Errorf("an unknown code is %+v", k)
	}
}

func TestRetryRules(t *testing.T) {
	for _, c := range []struct {
		retry event.Retry
		get   bool
		post  bool
	}{{event.RetryNever, false, false}, {event.RetryAlways, true, true}, {event.RetryReads, true, false}} {
		if c.retry.Allows(http.MethodGet) != c.get || c.retry.Allows(http.MethodPost) != c.post {
			t.Errorf("%+v", c)
		}
	}
}

var settingName = regexp.MustCompile(`\b(PROXY|MIMECAST|HTTPS)_[A-Z_]+\b`)

func inCode(text string) string { return settingName.ReplaceAllString(text, "`$0`") }

// responseTable returns the table of the proxy's error responses, for clients.
func responseTable() string {
	resend := map[event.Retry]string{event.RetryNever: "no", event.RetryAlways: "yes", event.RetryReads: "reads only"}
	var b strings.Builder
	b.WriteString("| status | code | resend | what happened | what to do |\n|---|---|---|---|---|\n")
	for _, k := range event.Kinds() {
		if k.Status != 0 && k.Code != event.ClientGone {
			fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s |\n", k.Status, k.Code, resend[k.Retry], inCode(k.Summary), inCode(k.Remedy))
		}
	}
	return b.String()
}

// logTable returns the table of the codes that only log and status page show, for
// operators.
func logTable() string {
	var b strings.Builder
	b.WriteString("| code | component | what happened | what to do |\n|---|---|---|---|\n")
	for _, k := range event.Kinds() {
		if k.Status == 0 || k.Code == event.ClientGone {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Code, k.Component, inCode(k.Summary), inCode(k.Remedy))
		}
	}
	return b.String()
}

var codeTable = regexp.MustCompile(`(?s)(<!-- codes: kept by a test -->\n\n)(.*?)(\n<!-- end of codes -->)`)

func TestDocsHaveTheCodes(t *testing.T) {
	for name, table := range map[string]string{"../docs/reference.md": responseTable(), "../docs/operations.md": logTable()} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		found := codeTable.FindStringSubmatch(string(text))
		switch {
		case found == nil:
			t.Errorf("%s has no table of codes", name)
		case found[2] == table:
		case !*update:
			t.Errorf("%s does not have this table; run with -update:\n%s", name, table)
		default:
			if err := os.WriteFile(name, []byte(strings.Replace(string(text), found[0], found[1]+table+found[3], 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
