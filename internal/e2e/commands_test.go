//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// silent returns a simulator whose token endpoint never responds.
func silent(t *testing.T) *simulator.Server {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: simulator.Forever})
	return sim
}

func TestSignalEndsACommandThatWaits(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
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
		p := program.Start(t, program.Environ(t, sim), c.args...)
		program.Await(t, "the token request", asked)
		p.Signal(c.sig)
		if code := p.Exit(); code != c.code {
			t.Errorf("%v: exit %d after %v\n%s%s", c.args, code, c.sig, p.Stdout.String(), p.Stderr.String())
		}
	}
}

// The image's health check and the systemd units rely on this command.
func TestHealthcheckFindsAProxyThatIsReady(t *testing.T) {
	t.Parallel()
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": "unix:" + filepath.Join(program.ShortDir(t), "admin")} {
		p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_ADMIN_LISTEN="+address)
		if network == "tcp" {
			address = p.Admin
		}
		check := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + address}, "healthcheck", "--wait", program.Patience.String())
		if code := check.Exit(); code != 0 || check.Stdout.String() != "ready\n" {
			t.Errorf("%s: exit %d\n%s%s", network, code, check.Stdout.String(), check.Stderr.String())
		}
	}
}

// Exec probes need all probes: a readiness probe for liveness would restart the proxy while
// Mimecast is down.
func TestHealthcheckAsksEachProbe(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	ready := program.Serve(t, sim)
	down := program.Start(t, program.Environ(t, sim, "MIMECAST_BASE_URL=http://127.0.0.1:1")).AwaitServing()
	for _, c := range []struct {
		admin, probe string
		code         int
		says         string
	}{
		{ready.Admin, "readiness", 0, "ready"}, {ready.Admin, "startup", 0, "ok"}, {ready.Admin, "liveness", 0, "ok"},
		{down.Admin, "readiness", 1, "no token was held yet"}, {down.Admin, "startup", 1, "no token was held yet"}, {down.Admin, "liveness", 0, "ok"},
		{ready.Admin, "nonsense", 2, "use readiness, startup or liveness"},
	} {
		p := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + c.admin}, "healthcheck", "--probe", c.probe)
		if code := p.Exit(); code != c.code || !strings.Contains(p.Stdout.String()+p.Stderr.String(), c.says) {
			t.Errorf("%s: exit %d instead of %d\n%s%s", c.probe, code, c.code, p.Stdout.String(), p.Stderr.String())
		}
	}
}

func TestSignalEndsAHealthcheckThatWaits(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	p := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + hangs.Addr().String()}, "healthcheck", "--wait", "1h")
	conn, err := hangs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "signal") {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

func TestRunForwardsWhatACommandMayWant(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for name, sig := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM} {
		cmd := exec.Command(program.Binary(), "run", "--", "sh", "-c", "trap 'exit 42' "+name+"; echo waiting; while :; do sleep 0.1; done")
		cmd.Env = program.Environ(t, sim, "PATH="+os.Getenv("PATH"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // detached from the terminal of the test
		p := program.StartCmd(t, cmd)
		p.Stdout.Await(t, "the command", func(text string) bool { return strings.Contains(text, "waiting") })
		p.Signal(sig)
		if code := p.Exit(); code != 42 {
			t.Errorf("exit %d after %v\n%s", code, sig, p.Stderr.String())
		}
	}
}

func TestRunKeepsTheCommandsRequestsFromACorporateProxy(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Start(t, program.Environ(t, sim, "TEST_CHILD=environ", "no_proxy=a.example", "PROXY_SHUTDOWN_DELAY=1h"), "run", "--", os.Args[0])
	p.Exit()
	if text := p.Stdout.String(); !strings.Contains(text, "\nno_proxy=a.example,127.0.0.1,localhost\n") || !strings.Contains(text, "\nNO_PROXY=a.example,127.0.0.1,localhost\n") {
		t.Errorf("the command's environment:\n%s", text)
	}
}

func TestConnectionsThatAskForNothingAreNoReasonToFail(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_SHUTDOWN_TIMEOUT=50ms")
	conn, err := net.Dial("tcp", p.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /half-a-header HTTP/1.1\r\nHost: local")
	p.Must("GET", "/identity/whoami", "") // the other connection was accepted by then, too
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

// If an idle connection receives bytes, net/http logs them. They must go through the
// program's log, which removes secrets.
func TestStandardLoggerPrintsNoPeersBytes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go babble(l)
	p := program.Start(t, []string{
		"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=secret", "MIMECAST_BASE_URL=http://" + l.Addr().String(),
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json", "PROXY_LOG_LEVEL=debug",
	})
	p.AwaitServing()
	p.Stderr.Await(t, "net/http's line", func(text string) bool { return strings.Contains(text, "Unsolicited response") })
	for line := range strings.Lines(p.Stderr.String()) {
		if !json.Valid([]byte(line)) || strings.Contains(line, babbled) {
			t.Errorf("printed: %s", line)
		}
	}
}

const babbled = "a-token-that-was-echoed"

// babble responds to every request with a token and sends more bytes.
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
			_, _ = conn.Read(make([]byte, 1)) // until the proxy closes the connection
		}()
	}
}

func TestCheckAsksForThePathAsItIsWritten(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for path, good := range map[string]bool{
		"/a%2Fb?c=[d]": true, "/100%25": true, "/x/../y": true, "/a//b": true,
		"identity/whoami": false, "": false, "//elsewhere/a": false, "/a b": false, "/a#b": false,
	} {
		sim.Reset()
		p := program.Start(t, program.Environ(t, sim), "check", "--path", path)
		if code := p.Exit(); (code == 2) == good {
			t.Errorf("%q: exit %d\n%s%s", path, code, p.Stdout.String(), p.Stderr.String())
		}
		asked := slices.ContainsFunc(sim.Requests(), func(r simulator.Request) bool { return r.Target == path })
		if asked != good || !good && len(sim.Requests()) > 0 {
			t.Errorf("%q: asked for as such: %v", path, asked)
		}
	}
}

func TestCheckSaysAsJSONWhatIsMisconfigured(t *testing.T) {
	t.Parallel()
	p := program.Start(t, []string{"MIMECAST_REGION=mars"}, "check", "--json")
	var report struct {
		OK    bool
		Steps []struct{ Step, Detail string }
	}
	if code := p.Exit(); code != 2 || json.Unmarshal([]byte(p.Stdout.String()), &report) != nil || report.OK ||
		len(report.Steps) != 1 || !strings.Contains(report.Steps[0].Detail, "MIMECAST_REGION") {
		t.Errorf("exit %d\n%s", code, p.Stdout.String())
	}
}

func TestCheckPassesStepByStep(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Start(t, program.Environ(t, sim), "check", "--json")
	var report struct {
		OK    bool
		Steps []struct {
			Step string
			OK   bool
		}
	}
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d\n%s%s", code, p.Stdout.String(), p.Stderr.String())
	}
	if err := json.Unmarshal([]byte(p.Stdout.String()), &report); err != nil || !report.OK || len(report.Steps) != 5 {
		t.Errorf("%v\n%s", err, p.Stdout.String())
	}
}

func TestQuitVersionHelpAndUsage(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_QUIT_ENDPOINT=true")
	quit := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + p.Admin}, "quit")
	if code := quit.Exit(); code != 0 {
		t.Errorf("quit: exit %d\n%s", code, quit.Stderr.String())
	}
	if code := p.Exit(); code != 0 {
		t.Errorf("after quit: exit %d\n%s", code, p.Stderr.String())
	}
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"version": {0, runtime.Version()}, "help": {0, "MIMECAST_CLIENT_SECRET_FILE"}, "--help": {0, "PROXY_RATE_LIMIT_WAIT"},
		"healthcheck": {1, "check that it runs"}, "nonsense": {2, "unknown command"}, "check --nonsense": {2, "unknown flag"}, "run": {2, "run needs a command"},
	} {
		p := program.Start(t, []string{"PROXY_ADMIN_LISTEN=127.0.0.1:1"}, strings.Fields(args)...)
		if code := p.Exit(); code != want.code || !strings.Contains(p.Stdout.String()+p.Stderr.String(), want.says) {
			t.Errorf("%s: exit %d\n%s%s", args, code, p.Stdout.String(), p.Stderr.String())
		}
	}
}

func TestSignalEndsSupportThatWaits(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	p := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + hangs.Addr().String()}, "support")
	conn, err := hangs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "signal") || p.Stdout.String() != "" {
		t.Errorf("exit %d\n%s%s", code, p.Stdout.String(), p.Stderr.String())
	}
}
