//go:build linux

package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	built "mimecast-proxy/internal/program"
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
	dir, err := os.MkdirTemp("", "n") // a socket's path is bounded to about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close(); os.RemoveAll(dir) })
	return &manager{t, socket, path}
}

// next returns the next message.
func (m *manager) next() string {
	m.t.Helper()
	if err := m.socket.SetReadDeadline(time.Now().Add(built.Patience)); err != nil {
		m.t.Fatal(err)
	}
	message := make([]byte, 4096)
	n, err := m.socket.Read(message)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(message[:n])
}

// await reads on until a message has the state in it.
func (m *manager) await(state string) string {
	m.t.Helper()
	for {
		if message := m.next(); slices.Contains(strings.Split(message, "\n"), state) {
			return message
		}
	}
}

func TestSystemdHearsReadyOnceATokenIsHeldAndStoppingAtTheDrain(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/oauth/token", Delay: 500 * time.Millisecond, Count: 1})
	m := notified(t)
	p := start(t, built.Environ(t, sim, "NOTIFY_SOCKET="+m.path))
	p.awaitServing()
	if got := m.next(); got != "READY=1\nSTATUS=Serving at "+strings.TrimPrefix(p.url, "http://") {
		t.Errorf("first %q", got)
	}
	if n := sim.TokenRequests(); n != 1 {
		t.Errorf("ready after %d token requests", n)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := m.next(); got != "STOPPING=1\nSTATUS=Draining" {
		t.Errorf("then %q", got)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// A unit that waits for Mimecast would hold up the machine's start.
func TestSystemdHearsReadyWithoutATokenToo(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{ClientSecret: "another"})
	m := notified(t)
	start(t, built.Environ(t, sim, "NOTIFY_SOCKET="+m.path))
	if got := m.await("READY=1"); !strings.Contains(got, "without a token") {
		t.Errorf("%q", got)
	}
}

func TestWatchdogIsFedWhileTheAdminListenerAnswers(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	for _, admin := range []string{"127.0.0.1:0", "off"} {
		m := notified(t)
		p := start(t, built.Environ(t, sim, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=200000", "PROXY_ADMIN_LISTEN="+admin))
		m.await("READY=1")
		for range 3 {
			m.await("WATCHDOG=1")
		}
		if admin == "off" {
			continue
		}
		// A process that hangs is what the watchdog is for. What was sent before
		// it hung is read away; then nothing comes.
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		await(t, "silence", func() bool {
			if err := m.socket.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err := m.socket.Read(make([]byte, 4096))
			return os.IsTimeout(err)
		})
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		m.await("WATCHDOG=1")
	}
}

// activate starts the program as systemd's socket activation does: the shell
// turns into the program, so that LISTEN_PID is right.
func activate(t *testing.T, environ []string, names string, listeners ...net.Listener) *program {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, built.Binary())
	cmd.Env = append(environ, "LISTEN_FDS="+string(rune('0'+len(listeners))), "LISTEN_FDNAMES="+names)
	for _, l := range listeners {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return startCommand(t, cmd)
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
	sim := built.Simulate(t, simulator.Options{})
	admin, data := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	p := activate(t, built.Environ(t, sim, "PROXY_LISTEN=127.0.0.1:1"), "admin:mimecast-proxy.socket", admin, data)
	p.awaitServing()
	if p.url != "http://"+data.Addr().String() || p.admin != "http://"+admin.Addr().String() {
		t.Errorf("%s and %s", p.url, p.admin)
	}
	p.awaitReady()
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	// The socket outlives the program: who calls meanwhile waits for the next.
	answered := make(chan int, 1)
	go func() {
		res, _, err := p.do("GET", "/identity/whoami", nil)
		if err != nil {
			answered <- 0
			return
		}
		answered <- res.StatusCode
	}()
	activate(t, built.Environ(t, sim), "", data)
	if status := <-answered; status != 200 {
		t.Errorf("after the restart: %d", status)
	}
}

func TestSocketFileOfSystemdStaysAsItIs(t *testing.T) {
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "p.sock")
	l := listen(t, "unix", path)
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	sim := built.Simulate(t, simulator.Options{})
	p := activate(t, built.Environ(t, sim), "", l)
	p.awaitServing()
	p.awaitReady()
	p.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	p.url = "http://any.name"
	if res, _ := p.must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("afterwards: %v %v", info, err)
	}
}

func TestSocketOfSystemdThatANetworkReachesIsJudgedAsOneOfOurs(t *testing.T) {
	sim := built.Simulate(t, simulator.Options{})
	p := activate(t, built.Environ(t, sim), "", listen(t, "tcp4", "0.0.0.0:0"))
	if code := p.exit(); code != 2 || !strings.Contains(p.stderr.String(), "PROXY_API_KEY") {
		t.Errorf("exit %d\n%s", code, p.stderr.String())
	}
	p = activate(t, built.Environ(t, sim), "", listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0"))
	if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), "FileDescriptorName=admin") {
		t.Errorf("two for one: exit %d\n%s", code, p.stderr.String())
	}
}
