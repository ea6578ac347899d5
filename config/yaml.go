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

// yamlError is a YAML error and its line.
type yamlError struct {
	line   int
	reason string
}

// parseYAML returns the root node of a text with one document; nil if nothing is in it.
// The nodes have line numbers. Aliases are not resolved, so a small text cannot expand to
// a large one.
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
		if root := document.Content[0]; !isBlank(root) {
			return root, nil
		}
		return nil, nil
	case err != nil:
		return nil, &yamlError{lineOfError(text, lines.count, err), yamlReason(err)}
	}
	return nil, &yamlError{second.Line, "has a second document"}
}

// lineReader returns at most one line per Read, and counts the lines.
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

// maxLookBehind limits the search for the line of an error. Each step parses the text
// again.
const maxLookBehind = 20

// lineOfError returns the line of an error that the parser found after reading the
// given number of lines. The parser's own line number is missing or off by one in some
// errors. So lineOfError looks for the first line after which the text fails in the
// same way.
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

// yamlReason returns the parser's message without its line number. It replaces messages
// that may quote the text, which may contain a secret.
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

// nodeKind describes the kind of a node for an error.
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

// nodeFault returns why a node of any kind is not accepted; empty if it is.
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

// isBlank reports whether nothing at all stands for the node. Its line may be after the
// text's last one.
func isBlank(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" && n.ShortTag() == "!!null" && nodeFault(n) == ""
}

// isMapping reports whether a node is a mapping that is accepted.
func isMapping(n *yaml.Node) bool { return n.Kind == yaml.MappingNode && nodeFault(n) == "" }

// shortKey matches keys that errors may show. A misplaced secret is longer.
var shortKey = regexp.MustCompile(`^[A-Za-z_-]{1,20}$`)

// shownKey returns a mapping key as errors show it.
func shownKey(key string) string {
	if shortKey.MatchString(key) || clientName.MatchString(key) && len(key) < minKeyLength {
		return fmt.Sprintf("%q", key)
	}
	return "a key (not shown, in case it is a secret)"
}
