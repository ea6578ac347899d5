//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// variables finds the lines that simulate prints for serve.
var variables = regexp.MustCompile(`(?m)^  (MIMECAST_[A-Z_]+=\S+)$`)

// simulate starts the command and returns it with an environment for serve.
func simulate(t *testing.T, args ...string) (p *program.Program, environ []string) {
	t.Helper()
	p = program.Start(t, nil, append([]string{"simulate", "--listen", "127.0.0.1:0", "--ca-out", filepath.Join(t.TempDir(), "ca.pem")}, args...)...)
	p.Stdout.Await(t, "the variables", func(text string) bool {
		if p.Ended() {
			t.Fatalf("it ended: %s", p.Stderr.String())
		}
		return strings.Contains(text, "Ctrl-C")
	})
	return p, proxyEnviron(p.Stdout.String())
}

// proxyEnviron returns an environment for serve with the variables that simulate printed.
func proxyEnviron(printed string) []string {
	environ := []string{"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json"}
	for _, m := range variables.FindAllStringSubmatch(printed, -1) {
		environ = append(environ, m[1])
	}
	return environ
}

func TestServeWorksInFrontOfSimulate(t *testing.T) {
	t.Parallel()
	const secret = "a-made-up-secret"
	sim, environ := simulate(t, "--client-id", "try-me", "--client-secret", secret)
	if text := sim.Stdout.String() + sim.Stderr.String(); strings.Contains(text, secret) || !strings.Contains(text, "MIMECAST_CLIENT_ID=try-me") {
		t.Errorf("it printed:\n%s", text)
	}
	p := program.Start(t, append(environ, "MIMECAST_CLIENT_SECRET="+secret)).AwaitServing().AwaitReady()
	if res, body := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
	if res, body := p.Must("GET", "/human-risk/v1/departments", ""); res.StatusCode != 501 || !strings.Contains(body, "not_simulated") {
		t.Errorf("what is not simulated: status %d: %s", res.StatusCode, body)
	}

	wrong := program.Start(t, append(environ, "MIMECAST_CLIENT_SECRET=another")).AwaitServing()
	if res, body := wrong.Must("GET", "/identity/whoami", ""); res.StatusCode != 502 || !strings.Contains(body, "credentials_refused") {
		t.Errorf("with a wrong secret: status %d: %s", res.StatusCode, body)
	}
	sim.Signal(syscall.SIGTERM)
	if code := sim.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, sim.Stderr.String())
	}
}

// Without flags, the credentials are the demo's. They are not secret, so all variables
// for serve are printed.
func TestSimulatePrintsTheDemosCredentials(t *testing.T) {
	t.Parallel()
	var out program.Output // program.Start would report the demo's secret as a leak
	cmd := exec.Command(program.Binary(), "simulate", "--listen", "127.0.0.1:0", "--ca-out", filepath.Join(t.TempDir(), "ca.pem"))
	cmd.Stdout = &out
	sim := program.StartCmd(t, cmd)
	out.Await(t, "the variables", func(text string) bool { return strings.Contains(text, "Ctrl-C") })
	p := program.Start(t, proxyEnviron(out.String())).AwaitServing().AwaitReady()
	if res, body := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("status %d: %s", res.StatusCode, body)
	}
	sim.Signal(os.Interrupt)
	if code := sim.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, sim.Stderr.String())
	}
}

func TestSimulateRejectsWhatCannotWork(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	sim := program.Simulate(t, simulator.Options{})
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no file":              {[]string{}, 2, "--ca-out"},
		"no port":              {[]string{"--ca-out", ca, "--listen", "127.0.0.1"}, 2, "host:port"},
		"every network":        {[]string{"--ca-out", ca, "--listen", "0.0.0.0:0"}, 2, "not a loopback address"},
		"a name":               {[]string{"--ca-out", ca, "--listen", "proxy.example:0"}, 2, "not a loopback address"},
		"an ID alone":          {[]string{"--ca-out", ca, "--listen", "127.0.0.1:0", "--client-id", "x"}, 2, "set together"},
		"a folder that is not": {[]string{"--ca-out", filepath.Join(dir, "none", "ca.pem"), "--listen", "127.0.0.1:0"}, 1, "--ca-out"},
		"a port that is taken": {[]string{"--ca-out", ca, "--listen", strings.TrimPrefix(sim.URL, "https://")}, 1, "in use"},
	} {
		p := program.Start(t, nil, append([]string{"simulate"}, c.args...)...)
		if code := p.Exit(); code != c.code || !strings.Contains(p.Stderr.String(), c.says) || p.Stdout.String() != "" {
			t.Errorf("%s: exit %d\n%s%s", name, code, p.Stdout.String(), p.Stderr.String())
		}
	}
	if _, err := os.Stat(ca); !os.IsNotExist(err) {
		t.Errorf("a file was written: %v", err)
	}
}
