package upstream

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshootingQuotesTheThreeCasesOfA407 checks that the page quotes the proxy's
// messages, so that a search finds them.
func TestTroubleshootingQuotesTheThreeCasesOfA407(t *testing.T) {
	doc, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "status 407, the message says")
	section, _, _ = strings.Cut(section, "\n## ")
	quotes := regexp.MustCompile(`(?m)^- \*([^*]+)\*`).FindAllStringSubmatch(section, -1)
	if len(quotes) != 3 {
		t.Fatalf("%d cases, want 3", len(quotes))
	}
	const required = http.StatusProxyAuthRequired
	for i, e := range []refusedByProxy{{status: required, basic: true}, {status: required, basic: true, signedIn: true}, {status: required, others: true}} {
		if !strings.Contains(e.advice(), quotes[i][1]) {
			t.Errorf("%q is not in %q", quotes[i][1], e.advice())
		}
	}
}
