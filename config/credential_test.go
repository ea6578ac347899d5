package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

// secretFrom returns the client secret that a file holds, or the only fault.
func secretFrom(t *testing.T, path string) (config.Credential, string) {
	t.Helper()
	environ := []string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET_FILE=" + path}
	if all := faults(t, environ); len(all) > 0 {
		if len(all) > 1 {
			t.Errorf("more than one fault: %q", all)
		}
		return config.Credential{}, all[0]
	}
	cfg, err := config.Parse(environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.ClientSecret, ""
}

func TestSecretFileIsReadEachTime(t *testing.T) {
	path := write(t, "first\r\n")
	c, fault := secretFrom(t, path)
	if fault != "" {
		t.Fatal(fault)
	}
	equal(t, "variable", c.Variable(), "MIMECAST_CLIENT_SECRET_FILE")
	for _, want := range []string{"first", "second"} {
		if got, err := c.Read(); err != nil || got.Reveal() != want {
			t.Errorf("%q, %v", got.Reveal(), err)
		}
		if err := os.WriteFile(path, []byte("second\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecretFileThatIsReplacedByALinkIsReadAnew(t *testing.T) {
	// Kubernetes swaps a link to a directory under the files of a Secret.
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "secret"), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	point := func(to string) {
		if err := os.Symlink(to, filepath.Join(dir, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	point("one")
	c, fault := secretFrom(t, filepath.Join(dir, "data", "secret"))
	if fault != "" {
		t.Fatal(fault)
	}
	point("two")
	if got, err := c.Read(); err != nil || got.Reveal() != "two" {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
}

func TestReadErrorNamesVariableAndPathAlone(t *testing.T) {
	path := write(t, "fine")
	c, fault := secretFrom(t, path)
	if fault != "" {
		t.Fatal(fault)
	}
	for _, content := range []string{"", marked + "\nmore", strings.Repeat(marked, 10_000)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		text, err := c.Read()
		if err == nil || !strings.Contains(err.Error(), "MIMECAST_CLIENT_SECRET_FILE") || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), marked) {
			t.Errorf("%v", err)
		}
		equal(t, "text beside an error", text.IsZero(), true)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

func TestOneTrailingNewlineIsNoPartOfASecret(t *testing.T) {
	longest := strings.Repeat("x", 64<<10)
	for content, want := range map[string]string{"a": "a", "a\n": "a", "a\r\n": "a", "a b": "a b", longest: longest} {
		c, fault := secretFrom(t, write(t, content))
		text, err := c.Read()
		if fault != "" || err != nil || text.Reveal() != want {
			t.Errorf("%.20q: %s %v", content, fault, err)
		}
	}
}

func TestUnusableSecretFiles(t *testing.T) {
	for content, says := range map[string]string{
		"": "is empty", "\n": "is empty", "\r\n": "is empty", marked + "\n\n": "control character", marked + "\r": "control character",
		marked + "\x00": "control character", marked + "\nmore": "control character", " " + marked: "a blank",
		strings.Repeat("x", 64<<10) + "\r\n": "larger than 64KiB", strings.Repeat("x", 64<<10) + "\rx": "larger than 64KiB",
	} {
		if _, fault := secretFrom(t, write(t, content)); !strings.Contains(fault, says) {
			t.Errorf("%.20q: %s", content, fault)
		}
	}
}

func TestSecretFileMustBeAFile(t *testing.T) {
	if _, fault := secretFrom(t, t.TempDir()); !strings.Contains(fault, "not a regular file") {
		t.Error(fault)
	}
}

func TestSecretInPlaceOfItsPathIsNotShown(t *testing.T) {
	_, fault := secretFrom(t, marked) // secretFrom looks for it
	if !strings.Contains(fault, "the name is not shown") {
		t.Error(fault)
	}
}

func TestNoCredentialReadsAsNone(t *testing.T) {
	text, err := config.Credential{}.Read()
	if err != nil || !text.IsZero() {
		t.Errorf("%v, %v", text, err)
	}
}
