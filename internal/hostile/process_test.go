//go:build linux

package hostile_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func TestHangupEndsNothing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t)
	stop := s.honest()
	for range 20 {
		s.Signal(syscall.SIGHUP)
		if err := s.whoami(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	s.Signal(syscall.SIGTERM)
	if code := s.ExitWithin(25*time.Second + shutdownGrace); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// SIGHUP during the drain must not count as the second signal.
func TestHangupWhileItDrainsCutsNothing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t)
	release := make(chan struct{})
	s.sim.AddFault(simulator.Fault{Path: "/identity/", Until: release, Count: 1})
	answered := make(chan error, 1)
	go func() { answered <- s.whoami() }()
	program.Await(s.T, "the request", func() bool { return s.Metric("mimecast_proxy_requests_in_flight") == 1 })
	s.Signal(syscall.SIGTERM)
	s.Stderr.Await(t, "the drain", func(log string) bool { return strings.Contains(log, `"draining"`) })
	s.Signal(syscall.SIGHUP)
	if err := s.admin("/livez"); err != nil {
		t.Error(err)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if code := s.ExitWithin(25*time.Second + shutdownGrace); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestAddressesThatCannotWorkAreConfigurationErrors(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{
		"PROXY_LISTEN=unix:/no/such/dir/s", "PROXY_ADMIN_LISTEN=unix:/no/such/dir/s", "PROXY_LISTEN=unix:" + file + "/s",
		"PROXY_LISTEN=unix:/" + strings.Repeat("x", 200), "PROXY_ADMIN_LISTEN=unix:" + strings.Repeat("/x", 100),
	} {
		p := program.Start(t, program.Environ(t, sim, wrong))
		name, _, _ := strings.Cut(wrong, "=")
		if code := p.Exit(); code != 2 || !strings.Contains(p.Stderr.String(), name) {
			t.Errorf("%.60s: exit %d\n%s", wrong, code, p.Stderr.String())
		}
	}
}

var label = regexp.MustCompile(`^(mimecast_proxy_\w+)\{.*\bcode="([^"]*)"`)

// series returns the number of the program's series, and the status codes in them that
// net/http does not know.
func (s *stand) series() (n int, unknown map[string]bool) {
	s.Helper()
	res, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	unknown = map[string]bool{}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "mimecast_proxy_") {
			n++
		}
		if m := label.FindStringSubmatch(lines.Text()); m != nil {
			var code int
			_, _ = fmt.Sscan(m[2], &code)
			if http.StatusText(code) == "" {
				unknown[m[2]] = true
			}
		}
	}
	if err := lines.Err(); err != nil {
		s.Fatal(err)
	}
	return n, unknown
}

func TestStatusesThatAreMadeUpAddNoSeries(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t)
	ask := func(method string, status int) {
		s.sim.AddFault(simulator.Fault{Status: status, Count: 1})
		req, err := http.NewRequest(method, "http://localhost/identity/whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%d became %d", status, res.StatusCode)
		}
	}
	ask("GET", 299)
	ask("POST", 299)
	before, _ := s.series()
	made := 0
	for status := 200; status <= 599; status++ {
		if http.StatusText(status) == "" {
			ask([]string{"GET", "POST"}[status%2], status)
			made++
		}
	}
	after, unknown := s.series()
	delete(unknown, "499") // the proxy's own code for clients that disconnected
	t.Logf("%d statuses, %d series before, %d after; unknown codes %v", made, before, after, unknown)
	if made < 150 || after > before+10 || len(unknown) > 1 {
		t.Errorf("%d statuses added %d series: %v", made, after-before, unknown)
	}
}

// Clients can make up methods.
func TestMethodsThatAreMadeUpAddNoSeries(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t)
	for i := range 150 {
		c := s.say(s.Listen, request(fmt.Sprintf("M%d /identity/whoami", i), "Connection: close"))
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if before, _ := s.series(); before == 0 {
				t.Fatal("no series")
			}
		}
	}
	if after, _ := s.series(); after > 400 {
		t.Errorf("%d series", after)
	}
}

// breakListener makes the listening socket of another process fail for good, as if its
// device were gone.
func breakListener(t *testing.T, pid int, address string) {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Skipf("no handle of another process can be had here: %v", err)
	}
	defer unix.Close(process)
	for fd := range 64 {
		dup, err := unix.PidfdGetfd(process, fd, 0)
		if err == unix.EPERM {
			t.Skip("the sockets of another process are out of reach here")
		}
		if err != nil {
			continue
		}
		name, _ := unix.Getsockname(dup)
		in4, ok := name.(*unix.SockaddrInet4)
		listening, _ := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		found := ok && listening == 1 && fmt.Sprint(in4.Port) == port
		if found {
			err = unix.Shutdown(dup, unix.SHUT_RDWR)
		}
		unix.Close(dup)
		if err != nil {
			t.Fatal(err)
		}
		if found {
			return
		}
	}
	t.Fatalf("process %d does not listen at %s", pid, address)
}

func TestServeEndsWithAnErrorWhenAListenerFails(t *testing.T) {
	t.Parallel()
	for _, which := range []string{"data", "admin"} {
		s := start(t)
		address := s.Listen
		if which == "admin" {
			address = s.Admin
		}
		breakListener(t, s.Cmd.Process.Pid, address)
		if code := s.ExitWithin(25*time.Second + shutdownGrace); code != 1 || !strings.Contains(s.Stderr.String(), "accept") {
			t.Errorf("%s: exit %d", which, code)
		}
	}
}

// If the proxy's listener fails, the command gets an error or ends.
func TestRunNoticesThatItsListenerFails(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	cmd := exec.Command(program.Binary(), "run", "--", "sh", "-c", `echo "at $MIMECAST_BASE_URL"; exec sleep 60`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // in case the command still runs
	cmd.Env = program.Environ(t, sim, "PATH="+os.Getenv("PATH"))
	p := program.StartCmd(t, cmd)
	var url string
	p.Stdout.Await(t, "the command", func(text string) bool {
		n, _ := fmt.Sscanf(text, "at %s", &url)
		return n == 1 && strings.HasSuffix(text, "\n")
	})
	breakListener(t, cmd.Process.Pid, strings.TrimPrefix(url, "http://"))
	s := watched(t, sim, p)
	program.AwaitWithin(s.T, slack, "the command's end, or an error in the log", func() bool {
		return p.Ended() || strings.Contains(p.Stderr.String(), `"level":"error"`)
	})
}
