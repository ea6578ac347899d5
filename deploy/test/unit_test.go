package deploy_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"howett.net/plist"

	"mimecast-proxy/simulator"
)

// credentials writes the two credential files and returns their directory.
func credentials(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range secrets["mimecast"] {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// answers runs the program with a service's variables and free local ports, and checks its
// response.
func (n *node) answers(environ []string) {
	n.t.Helper()
	environ = append(environ, "MIMECAST_BASE_URL="+n.sim.URL, "MIMECAST_CA_FILE="+n.ca, "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0")
	p := n.start(environ)
	p.await("an answer", func() bool { return p.get("http://"+p.data+"/identity/whoami", "localhost", "") == http.StatusOK })
	p.end()
}

func TestSystemdUnitIsValidAndHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	n := newNode(t)
	text, err := os.ReadFile("../systemd/mimecast-proxy.service")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := os.ReadFile("../systemd/mimecast-proxy.socket")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, unit := range map[string]string{"mimecast-proxy.service": strings.ReplaceAll(string(text), "/usr/bin/mimecast-proxy", n.binary), "mimecast-proxy.socket": string(socket)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service := filepath.Join(dir, "mimecast-proxy.service")
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", service, filepath.Join(dir, "mimecast-proxy.socket")).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=15", "--no-pager", service).CombinedOutput()
	if err != nil {
		t.Errorf("more exposed than 1.5: %v\n%s", err, out)
	}
	t.Log(strings.TrimSpace(string(out[strings.LastIndex(string(out), "Overall"):])))

	var environ []string
	for line := range strings.Lines(string(text)) {
		if variable, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="); ok {
			environ = append(environ, strings.ReplaceAll(variable, "%d", credentials(t)))
		}
	}
	n.answers(environ)
}

func TestSampleOfVariablesIsUnderstood(t *testing.T) {
	n := newNode(t)
	text, err := os.ReadFile("../systemd/environment")
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret}
	for line := range strings.Lines(string(text)) {
		// MIMECAST_REGION would conflict with the simulator's address.
		if variable, ok := strings.CutPrefix(strings.TrimSpace(line), "#"); ok && strings.Contains(variable, "=") && !strings.HasPrefix(variable, "MIMECAST_REGION=") {
			environ = append(environ, variable)
		}
	}
	if len(environ) < 4 {
		t.Errorf("%v", environ)
	}
	n.answers(environ)
}

func TestPropertyListStartsTheProxy(t *testing.T) {
	text, err := os.ReadFile("../launchd/mimecast-proxy.plist")
	if err != nil {
		t.Fatal(err)
	}
	var job struct {
		Label, UserName      string
		ProgramArguments     []string
		EnvironmentVariables map[string]string
		RunAtLoad            bool
		ExitTimeOut, Umask   int
	}
	if format, err := plist.Unmarshal(text, &job); err != nil || format != plist.XMLFormat {
		t.Fatalf("%v %v", format, err)
	}
	if job.Label != "mimecast-proxy" || len(job.ProgramArguments) != 2 || !job.RunAtLoad || job.Umask != 0o077 || job.ExitTimeOut < 26 || job.UserName == "" {
		t.Errorf("%+v", job)
	}
	var environ []string
	for name, value := range job.EnvironmentVariables {
		if strings.HasSuffix(name, "_FILE") {
			value = filepath.Join(credentials(t), filepath.Base(value))
		}
		environ = append(environ, name+"="+value)
	}
	newNode(t).answers(environ)
}
