package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"mimecast-proxy/secret"
)

// maxSecret bounds a file with a secret in it, in bytes: one that is larger is
// another file.
const maxSecret = 64 << 10

// Credential is a secret, or the file that holds it. The zero value is none.
type Credential struct {
	variable string
	text     secret.Text
	path     string
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.variable == "" }

// Variable names the variable that the credential comes from: that of the file
// where it is one.
func (c Credential) Variable() string { return c.variable }

// Read returns the secret. A file is read each time, so that a secret which
// was rotated is taken up; its trailing newline is no part of the secret. The
// error names the variable and the file.
func (c Credential) Read() (secret.Text, error) {
	if c.path == "" {
		return c.text, nil
	}
	text, err := readSecret(c.path)
	if err != nil {
		return secret.Text{}, fmt.Errorf("%s: the file %q %w", c.variable, c.path, err)
	}
	return text, nil
}

func readSecret(path string) (secret.Text, error) {
	content, err := readFile(path, maxSecret)
	if err != nil {
		return secret.Text{}, err
	}
	text, ended := strings.CutSuffix(string(content), "\n")
	if ended {
		text = strings.TrimSuffix(text, "\r")
	}
	return secret.New(text), judgeSecret(text)
}

// judgeSecret says what is wrong with a secret, and nothing of what it is.
func judgeSecret(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case strings.ContainsFunc(text, isControl):
		return errors.New("has a control character in it, such as a line break")
	case strings.TrimSpace(text) != text:
		return errors.New("begins or ends with a blank")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// credential judges NAME and NAME_FILE.
func (j *judge) credential(name string) Credential {
	file := name + "_FILE"
	value, path := j.environ[name], j.environ[file]
	switch {
	case value != "" && path != "":
		j.fault(name, "set together with "+file, "one of the two")
	case path != "":
		return j.fromFile(file, path)
	case value != "":
		if err := judgeSecret(value); err != nil {
			j.fault(name, "its value "+err.Error(), "the value on one line, without blanks around it")
		}
		if len(value) > 1 && value[0] == value[len(value)-1] && strings.ContainsRune(`"'`, rune(value[0])) {
			j.warning("%s has quotation marks around its value, which count as part of it", name)
		}
		return Credential{variable: name, text: secret.New(value)}
	case variable(name).Required:
		found := "not set"
		if j.empty[name] || j.empty[file] {
			found = "set, but empty"
		}
		j.fault(name, found, "what Mimecast's Administration Console shows once, when the API 2.0 application is created; or set "+file+" to a file that holds it")
	case j.empty[name] || j.empty[file]:
		j.warning("%s is set, but empty, which counts as not set", name)
	}
	return Credential{}
}

func (j *judge) fromFile(variable, path string) Credential {
	if _, err := readSecret(path); err != nil {
		found := fmt.Sprintf("the file %q %v", path, err)
		if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(path) {
			// Somebody may have put the secret itself here.
			found = "there is no file of that name in the working directory; the name is not shown, in case it is the secret itself"
		}
		j.fault(variable, found, fmt.Sprintf("the path of a regular file with nothing but the value in it, of at most %v", size(maxSecret)))
	}
	return Credential{variable: variable, path: path}
}
