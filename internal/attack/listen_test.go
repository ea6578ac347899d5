//go:build unix

package attack

import (
	"context"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/app"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

func TestAddressThatANetworkReachesIsRefusedWithAWordOnContainers(t *testing.T) {
	suite.Slow(t)
	sim := program.Simulate(t, simulator.Options{})
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "host.example:0"} {
		p := program.Start(t, program.Environ(t, sim, "PROXY_LISTEN="+address))
		code, said := p.Exit(), p.Stderr.String()
		for _, word := range []string{"PROXY_LISTEN", "PROXY_API_KEY", "PROXY_TRUST_NETWORK=true", "container"} {
			if code != 2 || !strings.Contains(said, word) {
				t.Errorf("%s: exit %d, no word of %s in:\n%s", address, code, word, said)
			}
		}
	}
	if n := sim.Counts().Requests; n > 0 {
		t.Errorf("Mimecast was asked %d times", n)
	}
	for _, consent := range []string{"PROXY_API_KEY=a-key-of-a-good-length", "PROXY_TRUST_NETWORK=true"} {
		program.Serve(t, sim, "PROXY_LISTEN=0.0.0.0:0", consent)
	}
}

// Browsers can reach 0.0.0.0 from any page, so it must not be an allowed Host.
func TestAddressThatMeansEveryAddressIsNoName(t *testing.T) {
	s := newStand(t, "PROXY_LISTEN=0.0.0.0:0", "PROXY_TRUST_NETWORK=true")
	_, port, _ := net.SplitHostPort(s.Listen)
	s.Listen = "127.0.0.1:" + port
	s.refuses(403, "host_not_allowed", request(whoami, "Host: 0.0.0.0:"+port))
	s.refuses(403, "host_not_allowed", request(whoami, "Host: [::]:"+port))
	s.passes(request(whoami, local))
}

func TestSocketIsPrivateFromItsFirstMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the most permissive umask
	for mode, want := range map[string]fs.FileMode{"0600": 0o600, "0660": 0o660, "0777": 0o777} {
		sim := program.Simulate(t, simulator.Options{})
		path := filepath.Join(program.ShortDir(t), "p.sock")
		born := make(chan fs.FileMode, 1)
		p := app.Env{Stdout: io.Discard, Stderr: io.Discard}
		p.Environ = program.Environ(t, sim, "PROXY_LISTEN=unix:"+path, "PROXY_SOCKET_MODE="+mode, "PROXY_ADMIN_LISTEN=off")
		p.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
			l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
			born <- modeOf(t, path)
			return l, err
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- p.Serve(ctx) }()
		if got := <-born; got != 0o600 {
			t.Errorf("born with mode %o", got)
		}
		if got := send(t, path, request(whoami, local), 1); len(got) != 1 || got[0].status != 200 {
			t.Errorf("%+v", got)
		}
		if got := modeOf(t, path); got != want {
			t.Errorf("mode %o, want %o", got, want)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if umask := syscall.Umask(0); umask != 0 {
			t.Errorf("the mask was left at %o", umask)
		}
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	return info.Mode().Perm()
}

func TestOnlyASocketThatNobodyListensAtIsReplaced(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	path := filepath.Join(program.ShortDir(t), "p.sock")
	environ := program.Environ(t, sim, "PROXY_LISTEN=unix:"+path, "PROXY_ADMIN_LISTEN=off")
	for range 2 {
		p := program.Start(t, environ)
		p.AwaitServing()
		second := program.Start(t, environ)
		if code, said := second.Exit(), second.Stderr.String(); code != 1 || !strings.Contains(said, "another process listens there") {
			t.Errorf("exit %d\n%s", code, said)
		}
		if got := send(t, path, request(whoami, "Host: any.name"), 1); len(got) != 1 || got[0].status != 200 {
			t.Errorf("after the second: %+v", got)
		}
		p.Kill() // leaves the socket file behind
	}
	for _, make := range []func() error{
		func() error { return os.WriteFile(path, []byte("data"), 0o600) },
		func() error { return os.Mkdir(path, 0o700) },
		func() error { return os.Symlink(filepath.Join(filepath.Dir(path), "target"), path) },
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := make(); err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		p := program.Start(t, environ)
		if code, said := p.Exit(), p.Stderr.String(); code != 1 || !strings.Contains(said, "not a socket") {
			t.Errorf("exit %d\n%s", code, said)
		}
		if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() || after.ModTime() != before.ModTime() {
			t.Errorf("%v became %v, %v", before, after, err)
		}
	}
}

// Browsers cannot open a Unix socket, so any Host is allowed there. Requests that are
// marked as a page's are still rejected.
func TestSocketTakesAnyNameAndNoPage(t *testing.T) {
	path := filepath.Join(program.ShortDir(t), "p.sock")
	s := newStand(t, "PROXY_LISTEN=unix:"+path)
	s.passes(request(whoami, "Host: any.name"))
	s.refuses(403, "origin_not_allowed", request(whoami, "Host: any.name", "Origin: http://any.name"))
}
