package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"mimecast-proxy/secret"
)

const (
	// maxSecret limits a file with secrets, in bytes.
	maxSecret = 64 << 10
	// maxKeys limits the keys in one file. Each key costs one comparison per request.
	maxKeys = 100
	// minKeyLength is the shortest random key that cannot be guessed, in characters.
	minKeyLength = 16
)

// Credential is one or several secrets that are valid at once. If they come from a
// file, a [Watcher] replaces them when the file changes. The zero value has no secret.
// Copies share the secrets.
type Credential struct {
	variable string
	current  *atomic.Pointer[[]secret.Text] // nil: none
}

// IsZero reports whether no credential is configured.
func (c Credential) IsZero() bool { return c.current == nil }

// Variable returns the name of the variable that the credential comes from. For a file,
// that is NAME_FILE.
func (c Credential) Variable() string { return c.variable }

// Value returns the current secret, or the first of several; zero if there is none. It
// reads no file.
func (c Credential) Value() secret.Text {
	if all := c.Values(); len(all) > 0 {
		return all[0]
	}
	return secret.Text{}
}

// Values returns all current secrets; nil if there are none. It reads no file. Do not
// change the slice.
func (c Credential) Values() []secret.Text {
	if c.current == nil {
		return nil
	}
	return *c.current.Load()
}

func newCredential(variable string, values ...secret.Text) Credential {
	c := Credential{variable, new(atomic.Pointer[[]secret.Text])}
	c.current.Store(&values)
	return c
}

// parseSecret parses a file with one secret. It drops a byte order mark and one
// trailing line end.
func parseSecret(content []byte) ([]secret.Text, error) {
	text, err := decodeText(content)
	if err != nil {
		return nil, err
	}
	if form := suspiciousForm(strings.TrimSpace(text)); form != "" {
		return nil, errors.New(form)
	}
	text = trimLineEnd(text)
	return []secret.Text{secret.New(text)}, checkSecret(text)
}

// parseKeys parses a file with one key per line. Blank lines are skipped.
func parseKeys(content []byte) ([]secret.Text, error) {
	text, err := decodeText(content)
	if err != nil {
		return nil, err
	}
	var keys []secret.Text
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = trimLineEnd(line)
		if strings.TrimSpace(line) == "" {
			continue
		}
		if err := checkSecret(line); err != nil {
			return nil, fmt.Errorf("has a key in line %d that %w", n, err)
		}
		keys = append(keys, secret.New(line))
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("is empty")
	case len(keys) > maxKeys:
		return nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	return keys, nil
}

const byteOrderMark = "\ufeff"

// decodeText returns the UTF-8 text of a file, without a byte order mark.
func decodeText(content []byte) (string, error) {
	text := string(content)
	switch {
	case isUTF16(content):
		return "", errors.New("is in UTF-16, not UTF-8")
	case !utf8.ValidString(text):
		return "", errors.New("is not text in UTF-8")
	}
	return strings.TrimPrefix(text, byteOrderMark), nil
}

// isUTF16 reports whether content begins with a UTF-16 byte order mark, or with an
// ASCII character in UTF-16.
func isUTF16(content []byte) bool {
	if len(content) < 2 {
		return false
	}
	first, second := content[0], content[1]
	return first == 0xff && second == 0xfe || first == 0xfe && second == 0xff || (first == 0) != (second == 0)
}

func trimLineEnd(line string) string {
	text, ended := strings.CutSuffix(line, "\n")
	if ended {
		text = strings.TrimSuffix(text, "\r")
	}
	return text
}

// checkSecret returns an error if text cannot be a secret. The error does not show the
// text.
func checkSecret(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case strings.ContainsFunc(text, isControl):
		return errors.New("has a control character in it, such as a line break")
	case strings.TrimSpace(text) != text:
		return errors.New("begins or ends with a blank")
	case !utf8.ValidString(text):
		return errors.New("is not text in UTF-8")
	}
	if i := strings.IndexFunc(text, isInvisible); i >= 0 {
		r, _ := utf8.DecodeRuneInString(text[i:])
		return fmt.Errorf("has the invisible character %U in it", r)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// isInvisible reports whether a character is invisible. Text copied from a web page may
// contain such characters.
func isInvisible(r rune) bool {
	return r != ' ' && !unicode.IsGraphic(r) || r != ' ' && unicode.IsSpace(r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// assignment matches NAME=value, as in a shell or an env file. It does not match
// base64, which has = only at its end.
var assignment = regexp.MustCompile(`^(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=\s*[^=\s]`)

// suspiciousForm describes why a text is probably more than the secret itself; empty if
// it looks like a secret.
func suspiciousForm(text string) string {
	switch {
	case isQuoted(text):
		return "has quotation marks around its value, which count as part of it"
	case strings.HasPrefix(text, "{") && json.Valid([]byte(text)):
		return "is JSON, not the value alone"
	case assignment.MatchString(text):
		return "has the form NAME=value, not the value alone"
	}
	return ""
}

func isQuoted(text string) bool {
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	return len(text) > 1 && strings.ContainsRune("\"'`“”„‘’«»", first) && strings.ContainsRune("\"'`“”„‘’«»", last)
}

// isBase64Line reports whether text is the base64 of a line of text, as "echo secret |
// base64" prints it.
func isBase64Line(text string) bool {
	line, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(line) < 2 || line[len(line)-1] != '\n' {
		return false
	}
	return checkSecret(trimLineEnd(string(line))) == nil
}

// readCredential reads NAME or NAME_FILE. parse parses the content of the file.
func (p *parser) readCredential(name string, parse func([]byte) ([]secret.Text, error)) Credential {
	file := name + "_FILE"
	value, path := p.environ[name], p.environ[file]
	switch {
	case value != "" && path != "":
		p.addError(name, "set together with "+file, "one of the two")
	case path != "":
		return p.credentialFromFile(file, path, parse)
	case value != "":
		return p.credentialFromVariable(name, value)
	case variable(name).Required:
		found := "not set"
		if p.empty[name] || p.empty[file] {
			found = "set, but empty"
		}
		p.addError(name, found, "the value that the Administration Console shows once, when you create the API 2.0 application; or set "+file+" to a file that contains it")
	case p.empty[name] || p.empty[file]:
		p.addWarning("%s is set, but empty, which counts as not set", name)
	}
	return Credential{}
}

func (p *parser) credentialFromVariable(name, value string) Credential {
	form := suspiciousForm(strings.TrimSpace(value))
	if err := checkSecret(value); form != "" && variable(name).Required && !isQuoted(value) {
		p.addError(name, "its value "+form, "the value alone")
	} else if err != nil {
		p.addError(name, "its value "+err.Error(), "the value on one line, without blanks around it")
	} else if form != "" {
		p.addWarning("%s %s", name, form)
	}
	p.warnOfWeak(name, secret.New(value))
	return newCredential(name, secret.New(value))
}

func (p *parser) credentialFromFile(variable, path string, parse func([]byte) ([]secret.Text, error)) Credential {
	c := newCredential(variable)
	f, err := newFile(variable, path, maxSecret, func(content []byte) error {
		values, err := parse(content)
		if err == nil {
			c.current.Store(&values)
		}
		return err
	})
	if err != nil {
		p.addError(variable, fileErrorText(path, err), fmt.Sprintf("the path of a regular file that contains only the value, of at most %v", size(maxSecret)))
		return c
	}
	p.files = append(p.files, f)
	p.warnOfWeak(variable, c.Values()...)
	return c
}

// fileErrorText describes why a file with a secret cannot be used.
func fileErrorText(path string, err error) string {
	if strings.ContainsRune(`"'`, rune(path[0])) && errors.Is(err, fs.ErrNotExist) {
		return "its value begins with a quotation mark, which counts as part of the file's name"
	}
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) {
		// The value may be the secret itself, set here by mistake.
		return "the working directory has no such file; its name is not shown, in case it is the secret"
	}
	return fmt.Sprintf("the file %q %v", path, err)
}

// warnOfWeak adds warnings for valid values that are easy to guess or probably a
// mistake.
func (p *parser) warnOfWeak(variable string, values ...secret.Text) {
	isKey := strings.HasPrefix(variable, "PROXY_API_KEY")
	for _, v := range values {
		text := v.Reveal()
		if isKey && utf8.RuneCountInString(text) < minKeyLength {
			p.addWarning("%s has a key of fewer than %d characters, which can be guessed; use a random one, for example from: openssl rand -hex 32", variable, minKeyLength)
			return
		}
		if form := suspiciousForm(text); isKey && form != "" && strings.HasSuffix(variable, "_FILE") {
			p.addWarning("%s %s", variable, form)
		}
		if !isKey && isBase64Line(text) {
			p.addWarning("%s looks base64-encoded; use the value as Mimecast shows it", variable)
		}
	}
}
