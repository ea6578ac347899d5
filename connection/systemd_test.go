package connection

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

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

// The test replaces systemd-creds with a script that records its arguments and environment.
// These must not contain the secret.
func TestSystemdCredsGetsTheSecretOnItsStandardInput(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it is a shell script")
	}
	bin := t.TempDir()
	seen := filepath.Join(bin, "seen")
	script := "#!/bin/sh\n{ echo \"$@\"; env; } >" + seen + "\necho 'first line\nno key' >&2\nexit 3\n"
	if err := os.WriteFile(filepath.Join(bin, "systemd-creds"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	t.Setenv("MIMECAST_CLIENT_SECRET", marked)
	dir := t.TempDir()
	_, err := SystemdCredentials(t.Context(), dir, credentials(marked, marked))
	if err == nil || strings.Contains(err.Error(), marked) || !strings.Contains(err.Error(), "no key") || !strings.Contains(err.Error(), "root") {
		t.Errorf("error: %v", err)
	}
	if text, err := os.ReadFile(seen); err != nil || strings.Contains(string(text), marked) {
		t.Errorf("it was shown (%v):\n%s", err, text)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("it left %v (%v)", entries, err)
	}
}

func TestSystemdCredsIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := SystemdCredentials(t.Context(), t.TempDir(), sample); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("error: %v", err)
	}
}
