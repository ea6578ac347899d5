//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// manager is systemd's side of the notification socket.
type manager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func notified(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(program.ShortDir(t), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return &manager{t, socket, path}
}

// next returns the next message.
func (m *manager) next() string {
	m.t.Helper()
	if err := m.socket.SetReadDeadline(time.Now().Add(program.Patience)); err != nil {
		m.t.Fatal(err)
	}
	message := make([]byte, 4096)
	n, err := m.socket.Read(message)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(message[:n])
}

// await reads messages until one contains the state.
func (m *manager) await(state string) string {
	m.t.Helper()
	for {
		if message := m.next(); slices.Contains(strings.Split(message, "\n"), state) {
			return message
		}
	}
}

func TestSystemdHearsReadyOnceATokenIsHeldAndStoppingAtTheDrain(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: 500 * time.Millisecond, Count: 1})
	m := notified(t)
	p := program.Start(t, program.Environ(t, sim, "NOTIFY_SOCKET="+m.path))
	p.AwaitServing()
	if got := m.next(); got != "READY=1\nSTATUS=Serving at "+p.Listen {
		t.Errorf("first %q", got)
	}
	if n := sim.TokenRequests(); n != 1 {
		t.Errorf("ready after %d token requests", n)
	}
	p.Signal(syscall.SIGTERM)
	if got := m.next(); got != "STOPPING=1\nSTATUS=Draining" {
		t.Errorf("then %q", got)
	}
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A unit that waited for Mimecast would delay the machine's boot.
func TestSystemdHearsReadyWithoutATokenToo(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{ClientSecret: "another"})
	m := notified(t)
	program.Start(t, program.Environ(t, sim, "NOTIFY_SOCKET="+m.path))
	if got := m.await("READY=1"); !strings.Contains(got, "without a token") {
		t.Errorf("%q", got)
	}
}

func TestWatchdogIsFedWhileTheAdminListenerAnswers(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	for _, admin := range []string{"127.0.0.1:0", "off"} {
		m := notified(t)
		p := program.Start(t, program.Environ(t, sim, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000", "PROXY_ADMIN_LISTEN="+admin))
		m.await("READY=1")
		for range 3 {
			m.await("WATCHDOG=1")
		}
		if admin == "off" {
			continue
		}
		// The watchdog is for a process that hangs. Discard the messages from before the
		// hang; then none may come.
		p.Signal(syscall.SIGSTOP)
		program.Await(t, "silence", func() bool {
			if err := m.socket.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err := m.socket.Read(make([]byte, 4096))
			return os.IsTimeout(err)
		})
		p.Signal(syscall.SIGCONT)
		m.await("WATCHDOG=1")
	}
}

// activate starts the program like systemd's socket activation. The shell execs the
// program, so that LISTEN_PID is right.
func activate(t *testing.T, environ []string, names string, listeners ...net.Listener) *program.Program {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, program.Binary())
	cmd.Env = append(environ, "LISTEN_FDS="+string(rune('0'+len(listeners))), "LISTEN_FDNAMES="+names)
	for _, l := range listeners {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return program.StartCmd(t, cmd)
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocketsOfSystemdAreServed(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	admin, data := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	p := activate(t, program.Environ(t, sim, "PROXY_LISTEN=127.0.0.1:1"), "admin:mimecast-proxy.socket", admin, data)
	p.AwaitServing()
	if p.URL != "http://"+data.Addr().String() || p.AdminURL != "http://"+admin.Addr().String() {
		t.Errorf("%s and %s", p.URL, p.AdminURL)
	}
	p.AwaitReady()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	// The socket outlives the program: new clients wait for the next start.
	answered := make(chan int, 1)
	go func() {
		res, _, err := p.Do("GET", "/identity/whoami", nil)
		if err != nil {
			answered <- 0
			return
		}
		answered <- res.StatusCode
	}()
	activate(t, program.Environ(t, sim), "", data)
	if status := <-answered; status != 200 {
		t.Errorf("after the restart: %d", status)
	}
}

func TestSocketFileOfSystemdStaysAsItIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(program.ShortDir(t), "p.sock")
	l := listen(t, "unix", path)
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	sim := program.Simulate(t, simulator.Options{})
	p := activate(t, program.Environ(t, sim), "", l)
	p.AwaitServing()
	p.AwaitReady()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("afterwards: %v %v", info, err)
	}
}

func TestSocketOfSystemdThatANetworkReachesIsJudgedAsOneOfOurs(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := activate(t, program.Environ(t, sim), "", listen(t, "tcp4", "0.0.0.0:0"))
	if code := p.Exit(); code != 2 || !strings.Contains(p.Stderr.String(), "PROXY_API_KEY") {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
	p = activate(t, program.Environ(t, sim), "", listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0"))
	if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "FileDescriptorName=admin") {
		t.Errorf("two for one: exit %d\n%s", code, p.Stderr.String())
	}
}
