// Package faults_test checks what docs/reliability.md promises. It runs the whole program
// over real sockets and TLS, with the simulator as Mimecast. It injects faults into both,
// and into the network between them.
package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/relay"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// proxy is the program, with the checks of these tests.
type proxy struct {
	*program.Program
	t *testing.T
}

// begin starts the program in this process and does not wait.
func begin(t *testing.T, environ []string) *proxy {
	t.Helper()
	return watched(t, program.StartHere(t, environ))
}

// spawn starts the program as a separate process and does not wait. The shell first
// executes before.
func spawn(t *testing.T, environ []string, before string) *proxy {
	t.Helper()
	return watched(t, program.StartLimited(t, before, environ))
}

// watched compares all signals of a program during the test. Each row of the matrix thus
// also tests the signals.
func watched(t *testing.T, p *program.Program) *proxy {
	t.Helper()
	p.WatchSignals()
	return &proxy{p, t}
}

func (p *proxy) awaitServing() *proxy { p.t.Helper(); p.AwaitServing(); return p }
func (p *proxy) awaitReady() *proxy   { p.t.Helper(); p.AwaitReady(); return p }

// logs waits until a line of the log contains all of the texts.
func (p *proxy) logs(texts ...string) {
	p.t.Helper()
	program.Await(p.t, fmt.Sprintf("a line with %q", texts), func() bool {
		for line := range strings.Lines(p.Stderr.String()) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return true
			}
		}
		return false
	})
}

// counts waits until a metric, named without its prefix, is at least n.
func (p *proxy) counts(sample string, n float64) {
	p.t.Helper()
	program.Await(p.t, sample, func() bool { return p.Metric("mimecast_proxy_"+sample) >= n })
}

// answer is a response as a client sees it.
type answer struct {
	status int
	code   string // error code of the proxy's own responses
	header http.Header
	body   string
	err    error
}

func (a answer) String() string {
	return fmt.Sprintf("status %d, code %q, error %v, body %.300q", a.status, a.code, a.err, a.body)
}

func (p *proxy) do(ctx context.Context, method, path string, body io.Reader, header ...string) answer {
	req, err := http.NewRequestWithContext(ctx, method, p.URL+path, body)
	if err != nil {
		return answer{err: err}
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.Client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(got), err}
}

func (p *proxy) get(path string) answer { return p.do(p.t.Context(), "GET", path, nil) }

func (p *proxy) post(path, body string) answer {
	return p.do(p.t.Context(), "POST", path, strings.NewReader(body))
}

// whoami makes the simplest request.
func (p *proxy) whoami() answer { return p.get("/identity/whoami") }

func (p *proxy) fine() {
	p.t.Helper()
	if a := p.whoami(); a.status != 200 || !strings.Contains(a.body, "account-codes") {
		p.t.Fatalf("%v", a)
	}
}

// says checks the status and the proxy's error code; empty means a response from Mimecast.
func (p *proxy) says(a answer, status int, code event.Code) {
	p.t.Helper()
	if a.err != nil || a.status != status || a.code != string(code) {
		p.t.Errorf("got %v; want %d %q", a, status, code)
	}
	if code != "" && !strings.Contains(a.body, `{"fail":[{"code":"`+string(code)+`"`) {
		p.t.Errorf("no envelope: %v", a)
	}
}

// world is a Mimecast behind a network that can fail.
type world struct {
	sim   *simulator.Server
	relay *relay.Relay
}

func newWorld(t *testing.T, o simulator.Options) *world {
	t.Helper()
	sim := program.Simulate(t, o)
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

// environ returns a configuration for the world. Token requests bypass the failing network.
func (w *world) environ(t *testing.T, more ...string) []string {
	t.Helper()
	return program.Environ(t, w.sim, append([]string{"MIMECAST_BASE_URL=https://" + w.relay.Addr(), "MIMECAST_TOKEN_URL=" + w.sim.URL + "/oauth/token"}, more...)...)
}

// serve starts the program in front of the world and waits until it is ready.
func (w *world) serve(t *testing.T, more ...string) *proxy {
	t.Helper()
	return begin(t, w.environ(t, more...)).awaitServing().awaitReady()
}

// fault injects a named fault at Mimecast.
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

// raw sends raw bytes, which an HTTP client might reject, and returns the connection.
func (p *proxy) raw(text string) *net.TCPConn {
	p.t.Helper()
	c := p.Dial()
	if _, err := io.WriteString(c, text); err != nil {
		p.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// read reads one response to a request with the given method.
func (p *proxy) read(r *bufio.Reader, method string) answer {
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(body), err}
}
