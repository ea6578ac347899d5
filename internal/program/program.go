// Package program builds the program and runs it for tests that look at it from outside.
// The program runs as a process or inside the test's process.
//
// At the end of each run it checks that no secret was printed and nothing panicked. If
// the test failed, it prints the whole log once.
package program

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/app"
	"mimecast-proxy/simulator"
)

// Patience is the time limit of every wait for something that must happen.
const Patience = time.Minute

// Program is a run of the program.
type Program struct {
	// Cmd is the process; nil if the program runs in the test's process.
	Cmd            *exec.Cmd
	Stdout, Stderr Output
	// Listen and Admin are the addresses that the program serves at, taken from its log:
	// host:port or the path of a socket.
	Listen, Admin string
	// URL and AdminURL are the base URLs of these addresses, for Client only. Client keeps
	// connections alive, does not decompress and does not follow redirects.
	URL, AdminURL string
	Client        *http.Client

	t       testing.TB
	signals chan os.Signal // if it runs in the test's process
	ended   chan struct{}
	code    int       // valid once it has ended
	endedAt time.Time // likewise
}

func newProgram(t testing.TB) *Program {
	p := &Program{t: t, ended: make(chan struct{})}
	p.Client = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true, DialContext: p.dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// dial connects to a socket if the host name stands for one.
func (p *Program) dial(ctx context.Context, network, address string) (net.Conn, error) {
	for _, path := range []string{p.Listen, p.Admin} {
		if strings.HasPrefix(path, "/") && "http://"+strings.TrimSuffix(address, ":80") == urlOf(path) {
			network, address = "unix", path
		}
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// urlOf returns the URL of an address. A socket gets a host name derived from its path.
func urlOf(address string) string {
	if strings.HasPrefix(address, "/") {
		return "http://" + strings.Trim(strings.ReplaceAll(strings.ToLower(address), "/", "."), ".")
	}
	return "http://" + address
}

// Start starts the program and does not wait. The program is killed when t ends.
func Start(t testing.TB, environ []string, args ...string) *Program {
	t.Helper()
	cmd := exec.Command(Binary(), args...) //nolint:noctx // the end of t kills it
	cmd.Env = environ
	return StartCmd(t, cmd)
}

// StartLimited is Start with a shell command before the program, which can limit its
// resources.
func StartLimited(t testing.TB, limit string, environ []string) *Program {
	t.Helper()
	cmd := exec.Command("sh", "-c", limit+` exec "$0"`, Binary()) //nolint:noctx // the end of t kills it
	cmd.Env = environ
	return StartCmd(t, cmd)
}

// StartCmd is Start for a prepared command. If cmd sets its Stdout or Stderr, the output
// goes there, and the Program's own stays empty.
func StartCmd(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	p := newProgram(t)
	p.Cmd = cmd
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState has the result
		p.code = cmd.ProcessState.ExitCode()
		p.end()
	}()
	t.Cleanup(p.cleanUp)
	return p
}

// StartHere runs the program in the test's process, which is faster and covered by the race
// detector. It does not wait.
func StartHere(t testing.TB, environ []string) *Program {
	t.Helper()
	p := newProgram(t)
	p.signals = make(chan os.Signal, 2)
	go func() {
		err := app.Env{Environ: environ, Stdout: &p.Stdout, Stderr: &p.Stderr, Signals: p.signals}.Serve(context.Background())
		if p.code = app.ExitCode(err); err != nil {
			fmt.Fprintln(&p.Stderr, "mimecast-proxy:", err)
		}
		p.end()
	}()
	t.Cleanup(p.cleanUp)
	return p
}

// Serve starts the program in front of sim and waits until it is ready.
func Serve(t testing.TB, sim *simulator.Server, more ...string) *Program {
	t.Helper()
	return Start(t, Environ(t, sim, more...)).AwaitServing().AwaitReady()
}

func (p *Program) end() {
	p.endedAt = time.Now()
	close(p.ended)
	_, _ = p.Stderr.Write(nil) // wake up a test that waits for output
}

// bearer matches a token in the output.
var bearer = regexp.MustCompile(`Bearer [A-Za-z0-9._~+/-]{16,}`)

func (p *Program) cleanUp() {
	p.Client.CloseIdleConnections()
	p.Kill()
	out, log := p.Stdout.String(), p.Stderr.String()
	if strings.Contains(out+log, simulator.DefaultClientSecret) || bearer.MatchString(out+log) {
		p.t.Error("a secret was printed")
	}
	if strings.Contains(log, "panic:") {
		p.t.Error("it panicked")
	}
	if p.t.Failed() {
		p.t.Logf("the whole log of the program:\n%s", log)
		if out != "" {
			p.t.Logf("what it printed:\n%s", out)
		}
	}
}

// address finds the addresses in the log line that states them, in either log format.
var address = regexp.MustCompile(`\b(listen|admin)"?[:=]"?([^\s",]+)`)

// AwaitServing waits for the log line with the addresses.
func (p *Program) AwaitServing() *Program {
	p.t.Helper()
	p.Stderr.Await(p.t, "the line that says where it serves", func(text string) bool {
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "serving") || !strings.HasSuffix(line, "\n") {
				continue
			}
			for _, found := range address.FindAllStringSubmatch(line, -1) {
				if found[1] == "listen" {
					p.Listen, p.URL = found[2], urlOf(found[2])
				} else {
					p.Admin, p.AdminURL = found[2], urlOf(found[2])
				}
			}
		}
		if p.Listen == "" && p.Ended() {
			p.t.Fatalf("it ended with code %d before it served", p.code)
		}
		return p.Listen != ""
	})
	return p
}

// Ready reports whether /readyz says that the program is ready.
func (p *Program) Ready() bool {
	res, err := p.Client.Get(p.AdminURL + "/readyz") //nolint:noctx // the program responds or ends
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// AwaitReady waits until the program reports that it is ready. Without an admin listener it
// does not wait.
func (p *Program) AwaitReady() *Program {
	p.t.Helper()
	Await(p.t, "readiness", func() bool { return p.Admin == "" || p.Ready() })
	return p
}

// Kill kills the program if it is still running.
func (p *Program) Kill() {
	if p.Cmd != nil {
		_ = p.Cmd.Process.Kill() // it has usually ended by now
	} else {
		for range 2 {
			select {
			case p.signals <- os.Interrupt:
			case <-p.ended:
			}
		}
	}
	<-p.ended
}

// Exit waits until the program has ended and returns its exit code, or -1 if a signal ended
// it.
func (p *Program) Exit() int {
	p.t.Helper()
	return p.ExitWithin(Patience)
}

// ExitWithin is Exit with another time limit.
func (p *Program) ExitWithin(bound time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(bound):
		p.t.Fatalf("it did not end within %v", bound)
	}
	return p.code
}

// Ended reports whether the program has ended.
func (p *Program) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Signal sends the program a signal.
func (p *Program) Signal(sig os.Signal) {
	p.t.Helper()
	if p.Cmd == nil {
		p.signals <- sig
		return
	}
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Do sends a request with pairs of header names and values. It returns the response and its
// body.
func (p *Program) Do(method, path string, body io.Reader, header ...string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.URL+path, body)
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return res, got, err
}

// Must is Do, but fails the test if there is no response.
func (p *Program) Must(method, path, body string, header ...string) (*http.Response, string) {
	p.t.Helper()
	res, got, err := p.Do(method, path, strings.NewReader(body), header...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, string(got)
}

// Dial opens a connection to the program's proxy listener.
func (p *Program) Dial() net.Conn { p.t.Helper(); return Dial(p.t, p.Listen) }

// Dial opens a connection to host:port or the path of a socket. The connection has a
// deadline, and is closed when t ends.
func Dial(t testing.TB, address string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := net.Dial(network, address) //nolint:noctx // the address is local
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it may be closed already
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// Send sends raw bytes, which an HTTP client might reject, on a new connection. It returns
// the response and its body.
func (p *Program) Send(raw string) (*http.Response, string) {
	p.t.Helper()
	conn := p.Dial()
	defer func() { _ = conn.Close() }() // the response was read completely
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(conn, raw) // the program may respond before it has read everything
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		p.t.Fatalf("%.60q: %v", raw, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Errorf("%.60q: %v", raw, err)
	}
	<-sent
	return res, string(body)
}

// AdminGet returns the admin listener's response and its body.
func (p *Program) AdminGet(path string) (*http.Response, string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience) // not the test's context, which is canceled before cleanup
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.AdminURL+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := p.Client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res, string(body)
}

// Metric returns the value of a sample of /metrics, or 0 if there is none.
func (p *Program) Metric(sample string) float64 {
	p.t.Helper()
	name, labels, _ := strings.Cut(strings.TrimSuffix(sample, "}"), "{")
	wanted := strings.Split(labels, ",")
	sum := 0.0
	for has, v := range p.Metrics() {
		hasName, hasLabels, _ := strings.Cut(strings.TrimSuffix(has, "}"), "{")
		if hasName == name && (labels == "" || containsAll(strings.Split(hasLabels, ","), wanted)) {
			sum += v
		}
	}
	return sum
}

func containsAll(texts, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(text string) bool { return !slices.Contains(texts, text) })
}

// Metrics returns all samples of /metrics.
func (p *Program) Metrics() map[string]float64 {
	p.t.Helper()
	_, text := p.AdminGet("/metrics") //nolint:bodyclose // AdminGet has closed it
	samples := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			p.t.Fatalf("%q: %v", line, err)
		}
		samples[line[:at]] = v
	}
	return samples
}

// Resident is the resident memory of a process, in bytes.
type Resident struct {
	Now, Most int64
	// Private is the part of Now that no file backs: heap, stacks and changed data. Under
	// memory pressure, the kernel can drop the rest and read it again.
	Private int64
}

// String returns both numbers in MiB.
func (m Resident) String() string {
	return fmt.Sprintf("%.1f MiB resident, %.1f MiB of it private", MiB(m.Now), MiB(m.Private))
}

// Resident reads the program's memory use. It skips the test if the system cannot report
// it.
func (p *Program) Resident() Resident {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if os.IsNotExist(err) {
		p.t.Skip("memory is read from /proc")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	var m Resident
	for line := range strings.Lines(string(status)) {
		for name, value := range map[string]*int64{"VmRSS": &m.Now, "VmHWM": &m.Most, "RssAnon": &m.Private} {
			var kib int64
			if _, err := fmt.Sscanf(line, name+": %d kB", &kib); err == nil {
				*value = kib << 10
			}
		}
	}
	return m
}

// Simulate starts a simulated Mimecast without rate limits. It is closed when t ends.
func Simulate(t testing.TB, o simulator.Options) *simulator.Server {
	t.Helper()
	if o.Quotas == nil {
		o.Quotas = map[string]simulator.Quota{}
	}
	sim, err := simulator.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	return sim
}

// Environ returns a configuration for sim, changed by more. The last value of a variable
// wins, and an empty value removes the variable.
func Environ(t testing.TB, sim *simulator.Server, more ...string) []string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	return override([]string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL=" + sim.URL, "MIMECAST_CA_FILE=" + ca,
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json",
	}, more...)
}

// override returns environ changed by more.
func override(environ []string, more ...string) (all []string) {
	place := map[string]int{}
	for _, v := range append(environ[:len(environ):len(environ)], more...) {
		name, _, _ := strings.Cut(v, "=")
		if at, ok := place[name]; ok {
			all[at] = v
			continue
		}
		place[name] = len(all)
		all = append(all, v)
	}
	return slices.DeleteFunc(all, func(v string) bool {
		_, value, _ := strings.Cut(v, "=")
		return value == ""
	})
}
