// Package faults_test holds the program to what docs/reliability.md promises:
// the whole program over real sockets and TLS, the simulator as Mimecast, and a
// network between them that fails on command.
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

// proxy is the program, with what these tests hold it to.
type proxy struct {
	*program.Program
	t *testing.T
}

// begin runs the program in this process and waits for nothing.
func begin(t *testing.T, environ []string) *proxy {
	t.Helper()
	return watched(t, program.StartHere(t, environ))
}

// spawn runs the program as a separate process, after what before has a shell
// do, and waits for nothing.
func spawn(t *testing.T, environ []string, before string) *proxy {
	t.Helper()
	return watched(t, program.StartLimited(t, before, environ))
}

// watched compares all signals of a program while the test lasts: so each row of the
// matrix plays against all of them.
func watched(t *testing.T, p *program.Program) *proxy {
	t.Helper()
	p.WatchSignals()
	return &proxy{p, t}
}

func (p *proxy) awaitServing() *proxy { p.t.Helper(); p.AwaitServing(); return p }
func (p *proxy) awaitReady() *proxy   { p.t.Helper(); p.AwaitReady(); return p }

// logs waits until a line of the log holds all of the texts.
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

// counts waits until a metric, less its prefix, is at least n.
func (p *proxy) counts(sample string, n float64) {
	p.t.Helper()
	program.Await(p.t, sample, func() bool { return p.Metric("mimecast_proxy_"+sample) >= n })
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

// whoami is the simplest request, and the answer that it ought to get.
func (p *proxy) whoami() answer { return p.get("/identity/whoami") }

func (p *proxy) fine() {
	p.t.Helper()
	if a := p.whoami(); a.status != 200 || !strings.Contains(a.body, "account-codes") {
		p.t.Fatalf("%v", a)
	}
}

// says checks an answer of the proxy's own; an empty code is Mimecast's.
func (p *proxy) says(a answer, status int, code event.Code) {
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

// environ is a configuration that leads to the world, with the token endpoint
// past the network that fails.
func (w *world) environ(t *testing.T, more ...string) []string {
	t.Helper()
	return program.Environ(t, w.sim, append([]string{"MIMECAST_BASE_URL=https://" + w.relay.Addr(), "MIMECAST_TOKEN_URL=" + w.sim.URL + "/oauth/token"}, more...)...)
}

// serve runs the program in front of the world until it is ready.
func (w *world) serve(t *testing.T, more ...string) *proxy {
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
func (p *proxy) raw(text string) *net.TCPConn {
	p.t.Helper()
	c := p.Dial()
	if _, err := io.WriteString(c, text); err != nil {
		p.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// read reads one answer to a request of a method.
func (p *proxy) read(r *bufio.Reader, method string) answer {
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header.Get(problem.Header), res.Header, string(body), err}
}
