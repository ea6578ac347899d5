package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/dotenv"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"mimecast-proxy/connection"
	"mimecast-proxy/secret"
)

// awkward are secrets that break YAML or variables without proper escaping.
var awkward = []string{
	"plain-0123", `back\slash`, `\\b`, `dou"ble`, "#comment", "a#b", "$HOME", "${HOME}", "$$", "%d", "a:b", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "@a", "`a`",
	"yes", "null", "~", "0x1f", "1e3", "<&>", "ünïcödé€", "🔑", "=a=", "a;b", "a,b",
}

func stored(text string) connection.Credentials {
	return connection.Credentials{ClientID: secret.New("id-" + text), ClientSecret: secret.New(text)}
}

func TestExportedEnvFileIsReadByCompose(t *testing.T) {
	c := connection.Connection{Region: "uk", CAFile: "/etc/my roots/ca.pem"}
	for _, text := range awkward {
		path := filepath.Join(t.TempDir(), "mimecast.env")
		if err := connection.WriteEnvFile(path, false, c, stored(text)); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got, err := dotenv.Read(path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for name, want := range map[string]string{
			"MIMECAST_CLIENT_ID": "id-" + text, "MIMECAST_CLIENT_SECRET": text, "MIMECAST_REGION": c.Region, "MIMECAST_CA_FILE": c.CAFile,
		} {
			if got[name] != want {
				t.Errorf("%s is %q, not %q", name, got[name], want)
			}
		}
	}
}

func TestExportedSecretIsReadByKubernetes(t *testing.T) {
	for _, text := range append([]string{`sin'gle`, `end\`}, awkward...) {
		var manifest strings.Builder
		if err := connection.WriteKubernetesSecret(&manifest, "mimecast", "siem", stored(text)); err != nil {
			t.Fatal(err)
		}
		var got corev1.Secret
		if err := sigsyaml.UnmarshalStrict([]byte(manifest.String()), &got); err != nil {
			t.Fatalf("%v\n%s", err, manifest.String())
		}
		if got.APIVersion != "v1" || got.Kind != "Secret" || got.Name != "mimecast" || got.Namespace != "siem" || got.Type != corev1.SecretTypeOpaque {
			t.Errorf("%s", manifest.String())
		}
		if len(got.StringData) != len(secrets["mimecast"]) {
			t.Errorf("the manifests need other keys than %v", got.StringData)
		}
		for name := range secrets["mimecast"] {
			if want := strings.TrimPrefix("id-"+text, map[string]string{"client-secret": "id-"}[name]); got.StringData[name] != want {
				t.Errorf("%s is %q, not %q", name, got.StringData[name], want)
			}
		}
	}
}

func TestSystemdTakesTheDropIn(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	unit, err := os.ReadFile("../systemd/mimecast-proxy.service")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	service := filepath.Join(dir, "mimecast-proxy.service")
	dropIn := filepath.Join(service+".d", "credentials.conf")
	if err := os.Mkdir(filepath.Dir(dropIn), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{service: strings.ReplaceAll(string(unit), "/usr/bin/mimecast-proxy", "/bin/true"), dropIn: connection.SystemdDropIn("/etc/mimecast-proxy")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", service).CombinedOutput()
	if err != nil || strings.Contains(string(out), "credentials.conf") {
		t.Errorf("%v: %s", err, out)
	}
}
