package connection

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// awkward are texts that a careless writer of YAML or of variables would break.
var awkward = []string{
	"plain-0123", `back\slash`, `dou"ble`, "#comment", "a#b", "$HOME", "${HOME}", "%d", "a:b", "- a", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "@a", "`a`",
	"yes", "null", "~", "0x1f", "1e3", "<&>", "ünïcödé€", "🔑", "=a=", "a;b", "a,b",
}

func TestKubernetesSecret(t *testing.T) {
	for _, text := range append(slices.Clone(awkward), `sin'gle`, `end\`) {
		var out strings.Builder
		if strings.ContainsAny(text, " ") {
			continue
		}
		if err := WriteKubernetesSecret(&out, "mimecast", "siem", credentials("id-"+text, text)); err != nil {
			t.Fatal(err)
		}
		values := map[string]string{}
		for scanner := bufio.NewScanner(strings.NewReader(out.String())); scanner.Scan(); {
			name, value, ok := strings.Cut(strings.TrimSpace(scanner.Text()), ": ")
			if unquoted := ""; ok && json.Unmarshal([]byte(value), &unquoted) == nil {
				value = unquoted
			}
			values[name] = value
		}
		for name, want := range map[string]string{
			"apiVersion": "v1", "kind": "Secret", "name": "mimecast", "namespace": "siem", "type": "Opaque", "client-id": "id-" + text, "client-secret": text,
		} {
			if values[name] != want {
				t.Errorf("%s is %q, not %q:\n%s", name, values[name], want, out.String())
			}
		}
	}
}

func TestKubernetesSecretWithoutNamespace(t *testing.T) {
	var out strings.Builder
	if err := WriteKubernetesSecret(&out, "mimecast", "", sample); err != nil || strings.Contains(out.String(), "namespace") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestEnvFile(t *testing.T) {
	for _, text := range awkward {
		if strings.ContainsAny(text, " ") {
			continue
		}
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

func TestSystemdCredentials(t *testing.T) {
	program, err := exec.LookPath("systemd-creds")
	if err != nil {
		t.Skip("systemd-creds is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can use this machine's key")
	}
	dir := filepath.Join(t.TempDir(), "etc", "mimecast-proxy")
	paths, err := SystemdCredentials(t.Context(), dir, sample)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ name, text string }{{"client-id", sample.ClientID.Reveal()}, {"client-secret", sample.ClientSecret.Reveal()}} {
		if paths[i] != filepath.Join(dir, want.name) {
			t.Fatalf("paths %v", paths)
		}
		encrypted, err := os.ReadFile(paths[i])
		if err != nil || strings.Contains(string(encrypted), want.text) {
			t.Fatalf("%s is not encrypted (%v)", want.name, err)
		}
		text, err := exec.CommandContext(t.Context(), program, "decrypt", "--name="+want.name, paths[i], "-").Output()
		if err != nil || string(text) != want.text {
			t.Errorf("%s is decrypted to %q (%v)", want.name, text, err)
		}
	}
	if _, err := SystemdCredentials(t.Context(), dir, sample); err != nil {
		t.Errorf("in place of older ones: %v", err)
	}
}

func TestSystemdDropInNamesWhatTheUnitLoads(t *testing.T) {
	unit, err := os.ReadFile("../deploy/systemd/mimecast-proxy.service")
	if err != nil {
		t.Fatal(err)
	}
	dropIn := SystemdDropIn("/etc/mimecast-proxy")
	if !strings.Contains(dropIn, "[Service]\n") || !strings.Contains(dropIn, "\nLoadCredential=\n") {
		t.Errorf("it does not take back the unit's own:\n%s", dropIn)
	}
	loaded := 0
	for line := range strings.Lines(string(unit)) {
		if credential, ok := strings.CutPrefix(line, "LoadCredential="); ok {
			loaded++
			if !strings.Contains(dropIn, "LoadCredentialEncrypted="+credential) {
				t.Errorf("the unit loads %s, the drop-in does not:\n%s", credential, dropIn)
			}
		}
	}
	if loaded != 2 {
		t.Errorf("the unit loads %d credentials", loaded)
	}
	if !strings.Contains(SystemdDropIn("/srv/50%"), ":/srv/50%%/client-id\n") {
		t.Error("a % is taken for a specifier")
	}
}
