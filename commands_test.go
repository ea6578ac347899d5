//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	built "mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// silent is a simulator whose token endpoint never answers.
func silent(t *testing.T) *simulator.Server {
	t.Helper()
	sim := built.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: simulator.Forever})
	return sim
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func TestSignalEndsACommandThatWaits(t *testing.T) {
	sim := silent(t)
	asked := func() bool {
		return slices.ContainsFunc(sim.Requests(), func(r simulator.Request) bool { return r.Target == "/oauth/token" })
	}
	for _, c := range []struct {
		args []string
		sig  syscall.Signal
		code int
	}{
		{[]string{"check"}, syscall.SIGINT, 1},
		{[]string{"check"}, syscall.SIGTERM, 1},
		{[]string{"run", "--", "/nowhere/command"}, syscall.SIGINT, 130},
		{[]string{"run", "--", "/nowhere/command"}, syscall.SIGTERM, 143},
	} {
		sim.Reset()
		p := start(t, built.Environ(t, sim), c.args...)
		await(t, "the token request", asked)
		p.signal(c.sig)
		if code := p.exit(); code != c.code {
			t.Errorf("%v: exit %d after %v\n%s%s", c.args, code, c.sig, p.stdout.String(), p.stderr.String())
		}
	}
}

func TestSignalEndsAHealthcheckThatWaits(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	p := start(t, []string{"PROXY_ADMIN_LISTEN=" + hangs.Addr().String()}, "healthcheck", "--wait", "1h")
	conn, err := hangs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), "signal") {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
}

func TestRunForwardsWhatACommandMayWant(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	for name, sig := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM} {
		cmd := exec.Command(built.Binary(), "run", "--", "sh", "-c", "trap 'exit 42' "+name+"; echo waiting; while :; do sleep 0.1; done")
		cmd.Env = built.Environ(t, sim, "PATH="+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // away from the terminal of whoever runs this
		p := startCommand(t, cmd)
		p.stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "waiting") })
		p.signal(sig)
		if code := p.exit(); code != 42 {
			t.Errorf("exit %d after %v\n%s", code, sig, p.stderr.String())
		}
	}
}

func TestRunKeepsTheCommandsRequestsFromACompanyProxy(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := start(t, built.Environ(t, sim, "TEST_CHILD=environ", "no_proxy=a.example", "PROXY_SHUTDOWN_DELAY=1h"), "run", "--", os.Args[0])
	p.exit()
	if text := p.stdout.String(); !strings.Contains(text, "\nno_proxy=a.example,127.0.0.1,localhost\n") || !strings.Contains(text, "\nNO_PROXY=a.example,127.0.0.1,localhost\n") {
		t.Errorf("the command's environment:\n%s", text)
	}
}

func TestConnectionsThatAskForNothingAreNoReasonToFail(t *testing.T) {
	p := serve(t, built.Simulate(t, simulator.Options{}), "PROXY_SHUTDOWN_TIMEOUT=50ms")
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /half-a-header HTTP/1.1\r\nHost: local")
	p.must("GET", "/identity/whoami", "") // so that the other connection was accepted too
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
}

// A peer's bytes are net/http's to print where a connection that is idle gets
// some. They go through the log, which knows what not to print.
func TestStandardLoggerPrintsNoPeersBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go babble(l)
	p := start(t, []string{
		"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=secret", "MIMECAST_BASE_URL=http://" + l.Addr().String(),
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json", "PROXY_LOG_LEVEL=debug",
	})
	p.awaitServing()
	p.stderr.Await(t, "net/http's line", func(text string) bool { return strings.Contains(text, "Unsolicited response") })
	for line := range strings.Lines(p.stderr.String()) {
		if !json.Valid([]byte(line)) || strings.Contains(line, babbled) {
			t.Errorf("printed: %s", line)
		}
	}
}

const babbled = "a-token-that-was-echoed"

// babble answers every request with a token, and goes on talking.
func babble(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return
			}
			body := `{"access_token":"` + babbled + `","expires_in":1799}`
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%sBearer %s", len(body), body, babbled)
			_, _ = conn.Read(make([]byte, 1)) // until the proxy hangs up
		}()
	}
}

func TestCheckAsksForThePathAsItIsWritten(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	for path, good := range map[string]bool{
		"/a%2Fb?c=[d]": true, "/100%25": true, "/x/../y": true, "/a//b": true,
		"identity/whoami": false, "": false, "//elsewhere/a": false, "/a b": false, "/a#b": false,
	} {
		sim.Reset()
		p := start(t, built.Environ(t, sim), "check", "--path", path)
		if code := p.exit(); (code == 2) == good {
			t.Errorf("%q: exit %d\n%s%s", path, code, p.stdout.String(), p.stderr.String())
		}
		asked := slices.ContainsFunc(sim.Requests(), func(r simulator.Request) bool { return r.Target == path })
		if asked != good || !good && len(sim.Requests()) > 0 {
			t.Errorf("%q: asked for as such: %v", path, asked)
		}
	}
}

func TestCheckSaysAsJSONWhatIsMisconfigured(t *testing.T) {
	p := start(t, []string{"MIMECAST_REGION=mars"}, "check", "--json")
	var report struct {
		OK    bool
		Steps []struct{ Step, Detail string }
	}
	if code := p.exit(); code != 2 || json.Unmarshal([]byte(p.stdout.String()), &report) != nil || report.OK ||
		len(report.Steps) != 1 || !strings.Contains(report.Steps[0].Detail, "MIMECAST_REGION") {
		t.Errorf("exit %d\n%s", code, p.stdout.String())
	}
}
