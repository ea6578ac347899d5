package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// alsoListening returns the additional addresses that the program serves at, from its log.
func alsoListening(t *testing.T, p *program.Program) []string {
	t.Helper()
	_, rest, ok := strings.Cut(p.Stderr.String(), `"also_listening":"`)
	addresses, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		t.Fatalf("no further addresses in\n%s", p.Stderr.String())
	}
	return strings.Split(addresses, ",")
}

// askAt sends a request to an address with the given Host. It returns the status and the
// proxy's error code.
func askAt(t *testing.T, network, address, host string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/identity/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode, res.Header.Get("X-Mimecast-Proxy-Error")
}

func TestBothLoopbackAddressesAreServed(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this machine has no ::1: %v", err)
	} else {
		_ = l.Close()
	}
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim, "PROXY_LISTEN=127.0.0.1:0,[::1]:0")
	if main := p.Listen; !strings.HasPrefix(main, "127.0.0.1:") {
		t.Errorf("the main address is %s", main)
	}
	also := alsoListening(t, p)
	if len(also) != 1 || !strings.HasPrefix(also[0], "[::1]:") {
		t.Fatalf("also listening at %q", also)
	}
	_, port, _ := net.SplitHostPort(also[0])
	for _, host := range []string{also[0], "localhost:" + port} {
		if status, code := askAt(t, "tcp", also[0], host); status != http.StatusOK {
			t.Errorf("%s: %d %s", host, status, code)
		}
	}
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

func TestSocketBesideAPortOpensThePortToNoOtherName(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("the mode of a socket says nothing there")
	}
	sim := program.Simulate(t, simulator.Options{})
	socket := filepath.Join(t.TempDir(), "s")
	p := program.Serve(t, sim, "PROXY_LISTEN=127.0.0.1:0,unix:"+socket)
	if also := alsoListening(t, p); len(also) != 1 || also[0] != socket {
		t.Fatalf("also listening at %q", also)
	}
	if status, code := askAt(t, "unix", socket, "localhost"); status != http.StatusOK {
		t.Errorf("the socket: %d %s", status, code)
	}
	for network, address := range map[string]string{"tcp": p.Listen, "unix": socket} {
		if status, code := askAt(t, network, address, "rebound.example"); status != http.StatusForbidden || code != "host_not_allowed" {
			t.Errorf("%s: %d %s", network, status, code)
		}
	}
}

// outside returns an address of this machine that is not loopback.
func outside(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

func TestHostOfEachListenerIsAllowed(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	host := outside(t)
	sim := program.Simulate(t, simulator.Options{})
	for listen, want := range map[string]int{"127.0.0.1:0,127.0.0.1:0": http.StatusForbidden, "127.0.0.1:0," + host + ":0": http.StatusOK} {
		p := program.Serve(t, sim, "PROXY_LISTEN="+listen, "PROXY_TRUST_NETWORK=true")
		if status, code := askAt(t, "tcp", p.Listen, host); status != want {
			t.Errorf("%s: %d %s", listen, status, code)
		}
	}
}

func TestAddressThatTheMachineLacksIsNamed(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, address := range []string{"[2001:db8::1]:0", "192.0.2.1:0"} {
		p := program.Start(t, program.Environ(t, program.Simulate(t, simulator.Options{}), "PROXY_LISTEN=127.0.0.1:0,"+address, "PROXY_TRUST_NETWORK=true"))
		if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "PROXY_LISTEN="+address+" is not an address of this machine; remove it from PROXY_LISTEN") {
			t.Errorf("exit %d\n%s", code, p.Stderr.String())
		}
	}
}

// How localhost resolves depends on the machine's Python and Node. If it is only ::1,
// both must reach the proxy there.
func TestPythonReachesTheProxyAtIPv6(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	if why := missingPython(); why != "" {
		t.Skip(why)
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("this machine has no ::1: %v", err)
	} else {
		_ = l.Close()
	}
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_LISTEN=127.0.0.1:0,[::1]:0")
	cmd := exec.CommandContext(t.Context(), program.Python(), "-c", "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1]).status)", "http://"+alsoListening(t, p)[0]+"/identity/whoami")
	cmd.Env = []string{"NO_PROXY=*"}
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "200" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestPortThatIsTakenIsSaidAtTheStart(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Start(t, program.Environ(t, sim, "PROXY_LISTEN="+l.Addr().String()))
	if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "is in use, perhaps by another") {
		t.Errorf("exit %d\n%s", code, p.Stderr.String())
	}
}

func TestSocketIsPrivateAndAStaleOneReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(program.ShortDir(t), "p.sock")
	sim := program.Simulate(t, simulator.Options{})
	for range 2 {
		p := program.Serve(t, sim, "PROXY_LISTEN=unix:"+path)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
		// A second proxy must not take over the socket of a running one.
		other := program.Start(t, program.Environ(t, sim, "PROXY_LISTEN=unix:"+path))
		if code := other.Exit(); code != 1 || !strings.Contains(other.Stderr.String(), "another process listens there") {
			t.Errorf("exit %d\n%s", code, other.Stderr.String())
		}
		p.Kill() // leaves the socket file behind
	}
}
