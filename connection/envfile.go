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

// WriteEnvFile writes a file of variables for docker compose, with mode 0600. If the file exists
// and overwrite is false, the error wraps fs.ErrExist. WriteEnvFile also returns an error for
// a value that the file's format cannot represent.
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

// reserve creates an empty file, so that no other process can create it at the same time.
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

// plainEnv matches values that need no quotes for any reader of such files.
var plainEnv = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,^-]+$`) })

// quoteEnv quotes a value with single quotes if docker compose needs them. It rejects a
// trailing backslash, since docker compose would take it for an escape of the last quote.
func quoteEnv(value string) (string, error) {
	if plainEnv().MatchString(value) {
		return value, nil
	}
	if strings.ContainsAny(value, "'\r\n\x00") || strings.HasSuffix(value, `\`) {
		return "", errors.New("has a quote, a line end or a backslash at its end: use another store")
	}
	return "'" + value + "'", nil
}
