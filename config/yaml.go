package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlError is why a text is no YAML, and where.
type yamlError struct {
	line   int
	reason string
}

// parseYAML returns the one document of a text; nil if it is empty. The nodes know their
// lines. The parser resolves no alias, so that a small text stays small.
func parseYAML(text []byte) (*yaml.Node, *yamlError) {
	lines := &lineReader{rest: text}
	d := yaml.NewDecoder(lines)
	var document, second yaml.Node
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, &yamlError{lineOfError(text, lines.count, err), yamlReason(err)}
	}
	switch err := d.Decode(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	case err != nil:
		return nil, &yamlError{lineOfError(text, lines.count, err), yamlReason(err)}
	}
	return nil, &yamlError{second.Line, "has a second document"}
}

// lineReader gives one line at a time, and counts them.
type lineReader struct {
	rest  []byte
	count int
}

// Read implements io.Reader.
func (r *lineReader) Read(buf []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := len(r.rest)
	if end := bytes.IndexByte(r.rest, '\n') + 1; end > 0 {
		n = end
	}
	n = copy(buf, r.rest[:n])
	if r.rest = r.rest[n:]; buf[n-1] == '\n' || len(r.rest) == 0 {
		r.count++
	}
	return n, nil
}

// maxLookBehind bounds the search for the line of an error, each step of which parses the
// text again.
const maxLookBehind = 20

// lineOfError returns the line of an error that the parser found after so many lines.
// The parser's own number is that of the line before, or missing, in some errors.
// So the line is the first after which the same text fails in the same way.
func lineOfError(text []byte, lines int, err error) int {
	line := max(1, lines)
	for range maxLookBehind {
		if line == 1 || !sameFailure(firstLines(text, line-1), err) {
			break
		}
		line--
	}
	return line
}

func firstLines(text []byte, n int) []byte {
	end := 0
	for range n {
		end += bytes.IndexByte(text[end:], '\n') + 1
	}
	return text[:end]
}

func sameFailure(text []byte, err error) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var n yaml.Node
		if got := d.Decode(&n); got != nil {
			return yamlReason(got) == yamlReason(err)
		}
	}
}

var yamlPlace = regexp.MustCompile(`^yaml: (line \d+: )?`)

// yamlReason returns the parser's words without its place, and without any of the text,
// which may be a secret.
func yamlReason(err error) string {
	reason := yamlPlace.ReplaceAllString(err.Error(), "")
	if strings.HasPrefix(reason, "unknown anchor") {
		return "has a value that begins with *, which is an alias in YAML"
	}
	if len(reason) > maxQuoted || strings.ContainsFunc(reason, isControl) {
		reason = "syntax error"
	}
	return "is not YAML: " + reason
}

// nodeKind names what a node is.
func nodeKind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.ShortTag() == "!!null":
		return "nothing"
	}
	return "a single value"
}

// nodeFault returns why a node cannot be used, of whatever kind it is; empty if it can.
func nodeFault(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.AliasNode:
		return "is an alias (*)"
	case n.Anchor != "":
		return "has an anchor (&)"
	case n.Style&yaml.TaggedStyle != 0:
		return "has a tag (!)"
	}
	return ""
}

// isMapping reports whether a node is a mapping that can be used.
func isMapping(n *yaml.Node) bool { return n.Kind == yaml.MappingNode && nodeFault(n) == "" }

// shortKey matches keys that can be shown: a secret in the wrong place is longer.
var shortKey = regexp.MustCompile(`^[A-Za-z_-]{1,20}$`)

// shownKey returns how an error shows a key of a mapping.
func shownKey(key string) string {
	if shortKey.MatchString(key) || clientName.MatchString(key) && len(key) < minKeyLength {
		return fmt.Sprintf("%q", key)
	}
	return "a key that is not shown, in case it is a secret,"
}
