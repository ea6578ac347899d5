package proxy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// undocumented are patterns that rely on undocumented behavior of net/http. Each of them
// broke with a new Go release, or let a client hang the proxy.
var undocumented = map[string]*regexp.Regexp{
	"decides by an error's text":  regexp.MustCompile(`(strings\.(Contains|HasPrefix|HasSuffix|EqualFold|Index)|MatchString)\([^()]*\.Error\(\)|\.Error\(\) *[!=]=|[!=]= *\w+\.Error\(\)|switch \w+\.Error\(\)`),
	"sets a deadline in the past": regexp.MustCompile(`Deadline\((time\.Now\(\)|time\.Unix\([^)]*\)|time\.Now\(\)\.Add\(-[^)]*\)|[\w.]*([pP]ast|[aA]go))\)`),
	"looks at the size of a read": regexp.MustCompile(`(?i)len\((p|b|buf)\) *[!=]= *1\b|background read`),
	"reaches into TLSNextProto":   regexp.MustCompile(`\.TLSNextProto\[`),
	"reads a single byte":         regexp.MustCompile(`\.Read\(make\(\[\]byte, 1\)\)|\[1\]byte\b`),
}

func TestNothingDependsOnWhatIsNotDocumented(t *testing.T) {
	looked := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		looked++
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			for what, pattern := range undocumented {
				if pattern.MatchString(line) {
					t.Errorf("%s:%d %s: %s", path, i+1, what, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil || looked < 50 {
		t.Errorf("%d files, %v", looked, err)
	}
}

func TestTheSearchFindsWhatItLooksFor(t *testing.T) {
	for line, what := range map[string]string{
		`if strings.Contains(err.Error(), "GOAWAY") {`:      "decides by an error's text",
		`return err.Error() == "EOF"`:                       "decides by an error's text",
		`_ = c.SetReadDeadline(time.Now())`:                 "sets a deadline in the past",
		`c.SetDeadline(time.Unix(1, 0))`:                    "sets a deadline in the past",
		`rc.SetWriteDeadline(time.Now().Add(-time.Second))`: "sets a deadline in the past",
		`c.SetReadDeadline(aLongTimeAgo)`:                   "sets a deadline in the past",
		`if len(p) == 1 {`:                                  "looks at the size of a read",
		`share := t.TLSNextProto["h2"]`:                     "reaches into TLSNextProto",
		`var one [1]byte`:                                   "reads a single byte",
	} {
		if !undocumented[what].MatchString(line) {
			t.Errorf("%s: %s", what, line)
		}
	}
	if line := `out.SetReadDeadline(time.Now().Add(lingerTimeout))`; undocumented["sets a deadline in the past"].MatchString(line) {
		t.Error(line)
	}
}
