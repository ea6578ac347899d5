package connection

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// The expressions are compiled on first use, since only connect needs them.
var (
	// label matches the text before a value: a variable's name, or a label in the
	// Administration Console. The groups are a quote before it, and "id" or "secret".
	label = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)(?:^|[\s,;{])(?:export\s+|set\s+|\$env:)?(["']?)(?:mimecast[ _-]?)?client[ _-]?(id|secret)["']?(?:[ \t]*[:=]|[ \t]*\r?\n|\t)`)
	})
	// variable matches any other variable's name with its value. The value is required,
	// since a base64 secret may end in "=".
	variable = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:export\s+|set\s+|\$env:)?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+=([^=].*)$`)
	})
)

// ParsePaste finds a client ID and secret in pasted text: one value or two, with or without
// labels, as lines of variables or as JSON. A single value without a label is taken for the
// ID. A value that it does not find is empty.
func ParsePaste(text string) (id, secret string) {
	text = strings.TrimFunc(text, invisible)
	if id, secret, ok := parseJSON(text); ok {
		return id, secret
	}
	if labels := label().FindAllStringSubmatchIndex(text, -1); labels != nil {
		return parseLabels(text, labels)
	}
	values := strings.FieldsFunc(text, invisible)
	for i := range values {
		values[i] = Clean(values[i])
	}
	switch len(values) {
	case 1:
		return values[0], ""
	case 2:
		return values[0], values[1]
	}
	return "", "" // ambiguous
}

func parseJSON(text string) (id, secret string, ok bool) {
	var object map[string]any
	if json.Unmarshal([]byte(text), &object) != nil {
		return "", "", false
	}
	for name, value := range object {
		value, _ := value.(string)
		switch strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name)) {
		case "clientid", "mimecastclientid":
			id = Clean(value)
		case "clientsecret", "mimecastclientsecret":
			secret = Clean(value)
		}
	}
	return id, secret, true
}

// parseLabels takes the text between each label and the next as the label's value.
func parseLabels(text string, labels [][]int) (id, secret string) {
	for i, at := range labels {
		value := text[at[1]:]
		if i+1 < len(labels) {
			value = strings.TrimRight(text[at[1]:labels[i+1][0]], " ,;") // separators
		}
		if words := strings.FieldsFunc(value, invisible); len(words) > 0 {
			value = Clean(words[0])
		}
		value = strings.TrimSuffix(value, text[at[2]:at[3]]) // a quote before the name, with its end after the value
		if strings.EqualFold(text[at[4]:at[5]], "id") {
			id = value
		} else {
			secret = value
		}
	}
	return id, secret
}

// invisible reports whether a character is blank or invisible, such as a byte order mark.
// Credentials contain no such characters.
func invisible(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// quotes maps each opening quote to its closing one.
var quotes = map[string]string{`"`: `"`, `'`: `'`, "`": "`", "“": "”", "„": "“", "‘": "’", "‚": "‘", "«": "»", "»": "«"}

// Clean removes what may surround a single pasted value: blanks, line ends, invisible
// characters, matching quotes, and a label or a variable's name with "=".
func Clean(text string) string {
	for {
		cleaned := cleanOnce(text)
		if cleaned == text {
			return cleaned
		}
		text = cleaned
	}
}

func cleanOnce(text string) string {
	text = strings.TrimFunc(text, invisible)
	for opening, closing := range quotes {
		if inner, ok := strings.CutPrefix(text, opening); ok {
			inner = strings.TrimRight(inner, ",;") // from a line of JSON or code
			if inner, ok = strings.CutSuffix(inner, closing); ok {
				return inner
			}
		}
	}
	if at := label().FindStringIndex(text); at != nil && at[0] == 0 && at[1] < len(text) {
		return text[at[1]:]
	}
	if parts := variable().FindStringSubmatch(text); parts != nil {
		return parts[1]
	}
	return text
}
