package config

import (
	"errors"
	"fmt"
	"io"
	"os"
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

// Variable names the variable that the credential comes from.
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
		return secret.Text{}, fmt.Errorf("%s: %w", c.variable, err)
	}
	return text, nil
}

func readSecret(path string) (secret.Text, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.Text{}, err // which has the path in it
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return secret.Text{}, err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if err := judgeSecret(text); err != nil {
		return secret.Text{}, fmt.Errorf("%s %w", path, err)
	}
	return secret.New(text), nil
}

// judgeSecret says what is wrong with a secret, and nothing of what it is.
func judgeSecret(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case len(text) > maxSecret:
		return fmt.Errorf("has more than %d bytes", maxSecret)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("has a control character in it, such as a line break")
	case strings.TrimSpace(text) != text:
		return errors.New("begins or ends with a space")
	}
	return nil
}

func (j *judge) credential(name string, required bool) Credential {
	value, path := j.environ[name], j.environ[name+"_FILE"]
	var c Credential
	var err error
	switch {
	case value != "" && path != "":
		j.say(name, "set together with %s_FILE; set one of them", name)
	case path != "":
		c = Credential{variable: name + "_FILE", path: path}
		_, err = readSecret(path)
	case value != "":
		c = Credential{variable: name, text: secret.New(value)}
		err = judgeSecret(value)
	case required:
		j.say(name, "not set; set it, or set %s_FILE to a file that holds it. It is shown once, when the API 2.0 application is created in the Mimecast Administration Console", name)
	}
	if err != nil {
		j.say(c.variable, "%v", err)
	}
	return c
}
