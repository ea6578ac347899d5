package connection

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
)

// Dir returns the folder for a user's connections: mimecast-proxy in the user's configuration
// folder, as os.UserConfigDir finds it. It returns an error if the environment does not name
// that folder.
func Dir(environ []string) (string, error) { return dir(runtime.GOOS, environ) }

func dir(system string, environ []string) (string, error) {
	switch system {
	case "windows":
		if base := lookup(environ, "AppData"); base != "" {
			return filepath.Join(base, "mimecast-proxy"), nil
		}
		return "", errors.New("no configuration folder: set AppData")
	case "darwin":
		if home := lookup(environ, "HOME"); home != "" {
			return filepath.Join(home, "Library", "Application Support", "mimecast-proxy"), nil
		}
		return "", errors.New("no configuration folder: set HOME")
	}
	base := lookup(environ, "XDG_CONFIG_HOME")
	if home := lookup(environ, "HOME"); base == "" && home != "" {
		base = filepath.Join(home, ".config")
	}
	if base == "" {
		return "", errors.New("no configuration folder: set HOME or XDG_CONFIG_HOME")
	}
	if !filepath.IsAbs(base) {
		return "", errors.New("XDG_CONFIG_HOME is a relative path: set an absolute one")
	}
	return filepath.Join(base, "mimecast-proxy"), nil
}

// lookup returns a variable's value, or "". The last of several counts. On Windows, names are
// not case-sensitive.
func lookup(environ []string, name string) string {
	value := ""
	for _, entry := range environ {
		n, v, _ := strings.Cut(entry, "=")
		if n == name || runtime.GOOS == "windows" && strings.EqualFold(n, name) {
			value = v
		}
	}
	return value
}
