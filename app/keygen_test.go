package app

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

// clientsOf parses a clients file, with a default account in the variables.
func clientsOf(t *testing.T, dir, content string) *config.Directory {
	t.Helper()
	path := filepath.Join(dir, "clients.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse([]string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=secret", "PROXY_CLIENTS_FILE=" + path}, nil)
	if err != nil || len(cfg.Warnings) > 0 {
		t.Fatal(err, cfg.Warnings)
	}
	return cfg.Clients.Current()
}

func TestKeygenPrintsAKeyAndItsLines(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if err := (Env{Stdout: &stdout, Stderr: &stderr}).Keygen("splunk"); err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSuffix(stdout.String(), "\n")
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(key) || strings.Contains(stderr.String(), key) {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	// The lines form a valid clients file, and stdout is a valid key file.
	lines := stderr.String()
	lines = lines[strings.Index(lines, "clients:\n"):strings.Index(lines, "Or keep")]
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), stdout.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := clientsOf(t, dir, lines).Clients[0]; c.Name != "splunk" || len(c.Digests) != 1 {
		t.Errorf("%+v", c)
	}
	if c := clientsOf(t, dir, "clients: {splunk: {keys: [{file: key}]}}").Clients[0]; c.Keys[0].Reveal() != key {
		t.Errorf("%+v", c)
	}
}

func TestKeygenMakesANewKeyEachTime(t *testing.T) {
	var first, second, stderr bytes.Buffer
	err := errors.Join(Env{Stdout: &first, Stderr: &stderr}.Keygen("a"), Env{Stdout: &second, Stderr: &stderr}.Keygen("a"))
	if err != nil || first.String() == second.String() {
		t.Error(err, first.String())
	}
}

func TestKeygenRejectsABadName(t *testing.T) {
	for _, name := range []string{"", "Splunk", "a b", strings.Repeat("a", 41)} {
		var stdout, stderr bytes.Buffer
		err := Env{Stdout: &stdout, Stderr: &stderr}.Keygen(name)
		if ExitCode(err) != ExitUsage || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%q: %v, %q", name, err, stdout.String()+stderr.String())
		}
	}
}
