package connection

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// WriteEnvFile writes a file of variables for docker compose, which only this user can
// read. It replaces a file that exists only if overwrite is set; otherwise the error is
// fs.ErrExist.
func WriteEnvFile(path string, overwrite bool, c Connection, creds Credentials) error {
	if err := creds.Check(); err != nil {
		return err
	}
	text, err := envText(c, creds)
	if err != nil {
		return err
	}
	if !overwrite {
		if err := reserve(path); err != nil {
			return err
		}
	}
	if err := writePrivate(path, []byte(text)); err != nil {
		if !overwrite {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	return nil
}

// reserve makes an empty file, so that no other process can make it meanwhile.
func reserve(path string) error {
	file, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w; remove it or choose another file", path, fs.ErrExist)
	}
	if err != nil {
		return err
	}
	return file.Close()
}

func envText(c Connection, creds Credentials) (string, error) {
	var text strings.Builder
	for _, v := range []struct{ name, value string }{
		{"MIMECAST_CLIENT_ID", creds.ClientID.Reveal()},
		{"MIMECAST_CLIENT_SECRET", creds.ClientSecret.Reveal()},
		{"MIMECAST_REGION", c.Region},
		{"MIMECAST_BASE_URL", c.BaseURL},
		{"MIMECAST_TOKEN_URL", c.TokenURL},
		{"MIMECAST_CA_FILE", c.CAFile},
	} {
		if v.value == "" {
			continue
		}
		quoted, err := quoteEnv(v.value)
		if err != nil {
			return "", fmt.Errorf("%s %w", v.name, err)
		}
		text.WriteString(v.name + "=" + quoted + "\n")
	}
	return text.String(), nil
}

// plainEnv are values that every reader of such files takes as they are.
var plainEnv = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,^-]+$`) })

// quoteEnv puts a value in single quotes if docker compose needs them. Within them it
// takes a backslash before the last quote for an escape.
func quoteEnv(value string) (string, error) {
	if plainEnv().MatchString(value) {
		return value, nil
	}
	if strings.ContainsAny(value, "'\r\n\x00") || strings.HasSuffix(value, `\`) {
		return "", errors.New("has a quote, a line end or a backslash at its end: use another store")
	}
	return "'" + value + "'", nil
}
