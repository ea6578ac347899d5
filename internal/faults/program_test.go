// Package faults_test holds the program to what docs/reliability.md promises:
// the whole program over real sockets and TLS, the simulator as Mimecast, and a
// network between them that fails on command.
package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/app"
	"mimecast-proxy/event"
	built "mimecast-proxy/internal/program"
	"mimecast-proxy/internal/relay"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// patience bounds every wait for something that is sure to come.
const patience = 60 * time.Second

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}

// program is the proxy, in this process or as one of its own.
type program struct {
	t              *testing.T
	stdout, stderr built.Output
	url, admin     string
	client         *http.Client
	signals        chan os.Signal // of one in this process
	cmd            *exec.Cmd      // of another
	ended          chan struct{}
	code           int // once ended
}

// bearer matches a token that got into a text.
var bearer = regexp.MustCompile(`Bearer [A-Za-z0-9._~+/-]{16,}`)

func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, signals: make(chan os.Signal, 2), ended: make(chan struct{}), client: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		p.kill()
		if all := p.stdout.String() + p.stderr.String(); strings.Contains(all, simulator.DefaultClientSecret) || bearer.MatchString(all) || strings.Contains(all, "panic:") {
			t.Error("a secret was printed, or it panicked")
		}
		if t.Failed() {
			t.Logf("the whole log of the program:\n%s", p.stderr.String())
		}
	})
	return p
}

func (p *program) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it has most often ended by now
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

// begin runs the program in this process, which the race detector watches, and
// waits for nothing.
func begin(t *testing.T, environ []string) *program {
	t.Helper()
	p := newProgram(t)
	go func() {
		defer close(p.ended)
		err := app.Env{Environ: environ, Stdout: &p.stdout, Stderr: &p.stderr, Signals: p.signals}.Serve(context.Background())
		if p.code = app.ExitCode(err); err != nil {
			fmt.Fprintln(&p.stderr, "mimecast-proxy:", err)
		}
	}()
	return p
}

// spawn runs the program as a process of its own, by a command line of the
// shell's that ends in exec, and waits for nothing.
func spawn(t *testing.T, environ []string, before string) *program {
	t.Helper()
	p := newProgram(t)
	p.cmd = exec.Command("sh", "-c", before+` exec "$0"`, built.Binary())
	p.cmd.Env = environ
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the state tells how it ended
		p.code = p.cmd.ProcessState.ExitCode()
	}()
	return p
}

// exit waits until the program has ended and returns its code.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatal("it does not end")
	}
	return p.code
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		p.signals <- s
		return
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) awaitServing() *program {
	p.t.Helper()
	await(p.t, "the line that says where it serves", func() bool {
		select {
		case <-p.ended:
			p.t.Fatal("it ended")
		default:
		}
		for line := range strings.Lines(p.stderr.String()) {
			var said struct{ Listen, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Listen != "" {
				p.url, p.admin = "http://"+said.Listen, "http://"+said.Admin
				return true
			}
		}
		return false
	})
	return p
}

func (p *program) ready() bool {
	res, err := p.client.Get(p.admin + "/readyz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == 200
}

func (p *program) awaitReady() *program {
	p.t.Helper()
	await(p.t, "readiness", p.ready)
	return p
}

// logs waits until a line of the log holds all of the texts.
func (p *program) logs(texts ...string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("a line with %q", texts), func() bool {
		for line := range strings.Lines(p.stderr.String()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return true
			}
		}
		return false
	})
}

// metric returns the value of one sample of /metrics, or 0.
func (p *program) metric(sample string) float64 {
	p.t.Helper()
	res, err := p.client.Get(p.admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	return built.Sample(p.t, res.Body, sample)
}

// counts waits until a metric, less its prefix, is at least n.
func (p *program) counts(sample string, n float64) {
	p.t.Helper()
	await(p.t, sample, func() bool { return p.metric("mimecast_proxy_"+sample) >= n })
}

// answer is what a client saw.
type answer struct {
	status int
	code   string // the proxy's own
	header http.Header
	body   string
	err    error
}

func (a answer) String() string {
	return fmt.Sprintf("status %d, code %q, error %v, body %.300q", a.status, a.code, a.err, a.body)
}

func (p *program) do(ctx context.Context, method, path string, body io.Reader, header ...string) answer {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, body)
	if err != nil {
		return answer{err: err}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(got), err}
}

func (p *program) get(path string) answer { return p.do(p.t.Context(), "GET", path, nil) }

func (p *program) post(path, body string) answer {
	return p.do(p.t.Context(), "POST", path, strings.NewReader(body))
}

// whoami is the simplest request, and the answer that it ought to get.
func (p *program) whoami() answer { return p.get("/identity/whoami") }

func (p *program) fine() {
	p.t.Helper()
	if a := p.whoami(); a.status != 200 || !strings.Contains(a.body, "account-codes") {
		p.t.Fatalf("%v", a)
	}
}

// says checks an answer of the proxy's own; an empty code is Mimecast's.
func (p *program) says(a answer, status int, code event.Code) {
	p.t.Helper()
	if a.err != nil || a.status != status || a.code != string(code) {
		p.t.Errorf("got %v; want %d %q", a, status, code)
	}
	if code != "" && !strings.Contains(a.body, `{"fail":[{"code":"`+string(code)+`"`) {
		p.t.Errorf("no envelope: %v", a)
	}
}

// world is a Mimecast behind a network.
type world struct {
	sim   *simulator.Server
	relay *relay.Relay
}

func newWorld(t *testing.T, o simulator.Options) *world {
	t.Helper()
	sim := built.Simulate(t, o)
	r, err := relay.Start(strings.TrimPrefix(sim.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{sim, r}
}

// environ is a configuration that leads to the world, with the token endpoint
// past the network that fails.
func (w *world) environ(t *testing.T, more ...string) []string {
	t.Helper()
	all := append(built.Environ(t, w.sim, "MIMECAST_BASE_URL=https://"+w.relay.Addr(), "MIMECAST_TOKEN_URL="+w.sim.URL+"/oauth/token"), more...)
	// The last word on a variable counts; an empty one takes it away.
	seen := map[string]bool{}
	var environ []string
	for _, v := range slices.Backward(all) {
		name, value, _ := strings.Cut(v, "=")
		if !seen[name] && value != "" {
			environ = append(environ, v)
		}
		seen[name] = true
	}
	return environ
}

// serve runs the program in front of the world until it is ready.
func (w *world) serve(t *testing.T, more ...string) *program {
	t.Helper()
	return begin(t, w.environ(t, more...)).awaitServing().awaitReady()
}

// fault makes Mimecast misbehave in a way that has a name.
func (w *world) fault(t *testing.T, name string, change ...func(*simulator.Fault)) {
	t.Helper()
	f, err := simulator.NamedFault(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&f)
	}
	w.sim.AddFault(f)
}

func once(f *simulator.Fault) { f.Count = 1 }

func at(path string) func(*simulator.Fault) { return func(f *simulator.Fault) { f.Path = path } }

// raw sends bytes that no client library would and returns the connection.
func (p *program) raw(text string) *net.TCPConn {
	p.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		p.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// read reads one answer to a request of a method.
func (p *program) read(r *bufio.Reader, method string) answer {
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(body), err}
}
