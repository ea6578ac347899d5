package connection

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnvFile(t *testing.T) {
	for _, text := range awkward {
		path := filepath.Join(t.TempDir(), "mimecast.env")
		c := Connection{BaseURL: "https://eu.example.com", TokenURL: "https://eu.example.com/oauth/token", CAFile: "/etc/my roots/ca.pem"}
		if err := WriteEnvFile(path, false, c, credentials(text, text)); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for line := range strings.Lines(string(content)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if inner, ok := strings.CutPrefix(value, "'"); ok {
				value = strings.TrimSuffix(inner, "'")
			} else if strings.ContainsAny(value, "'\"\\$`# ;&|<>()") {
				t.Errorf("a shell or docker compose would not take %s as it is", line)
			}
			got[name] = value
		}
		for name, want := range map[string]string{
			"MIMECAST_CLIENT_ID": text, "MIMECAST_CLIENT_SECRET": text, "MIMECAST_BASE_URL": c.BaseURL, "MIMECAST_TOKEN_URL": c.TokenURL, "MIMECAST_CA_FILE": c.CAFile,
		} {
			if got[name] != want {
				t.Errorf("%s is %q, not %q", name, got[name], want)
			}
		}
		if _, ok := got["MIMECAST_REGION"]; ok {
			t.Error("there is a region beside the base URL")
		}
	}
}

func TestEnvFileIsOverwrittenOnlyIfToldTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mimecast.env")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Connection{Region: "uk"}
	if err := WriteEnvFile(path, false, c, sample); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "old" {
		t.Errorf("it has become %q", text)
	}
	if err := WriteEnvFile(path, true, c, sample); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "\nMIMECAST_REGION=uk\n") {
		t.Errorf("it is %q", text)
	}
}

func TestEnvFileRejectsWhatItCannotHold(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{marked + "'", marked + `\`, marked + "\nX=y", marked + "\x00", ""} {
		err := WriteEnvFile(filepath.Join(dir, "env"), false, Connection{}, credentials("an-id", text))
		if err == nil || strings.Contains(err.Error(), marked) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("it left %v", entries)
	}
}
