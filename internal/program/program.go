// Package program builds the program and runs it as a process, for the tests
// that look at it from outside. It is no part of the program.
package program

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

// Patience bounds every wait for something that is sure to come.
const Patience = 30 * time.Second

// Main runs the tests of m and returns their exit code. The program is built
// when it is first needed, in a directory that Main removes.
func Main(m *testing.M) int {
	defer func() {
		if dir != "" {
			_ = os.RemoveAll(dir) // the system clears it up some day
		}
	}()
	return m.Run()
}

var dir string // where the program is built

// Binary returns the path of the program.
var Binary = sync.OnceValue(func() string {
	path, err := build()
	if err != nil {
		panic(err)
	}
	return path
})

func build() (string, error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output() //nolint:noctx // it asks nobody
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	// A result of go test is kept until a file changes that the test looked at.
	// It looks at the packages that it imports, and main is none of them.
	if _, err := os.Stat(filepath.Join(root, "main.go")); err != nil {
		return "", fmt.Errorf("looking for the program's source: %w", err)
	}
	if dir, err = os.MkdirTemp("", "mimecast-proxy"); err != nil {
		return "", fmt.Errorf("making a directory for the program: %w", err)
	}
	path := filepath.Join(dir, "mimecast-proxy")
	// As it is shipped.
	cmd := exec.Command("go", "build", "-pgo=auto", "-trimpath", "-ldflags=-s -w", "-o", path, ".") //nolint:noctx // it ends by itself
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return path, nil
}

// Output is what a program wrote, readable while it writes.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed at the next write
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Await waits until found says yes to what was written.
func (o *Output) Await(t testing.TB, what string, found func(string) bool) {
	t.Helper()
	timeout := time.After(Patience)
	for {
		o.mu.Lock()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more, text := o.more, o.text.String()
		o.mu.Unlock()
		if found(text) {
			return
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("%s did not come:\n%s", what, text)
		}
	}
}

// Program is the program as a process.
type Program struct {
	Cmd            *exec.Cmd
	Stdout, Stderr Output
	// Listen and Admin are the addresses it serves at, as it said.
	Listen, Admin string
	ended         chan struct{}
}

// Start runs the program and waits for nothing. It is killed when t ends.
func Start(t testing.TB, environ []string, args ...string) *Program {
	t.Helper()
	return StartCmd(t, exec.Command(Binary(), args...), environ) //nolint:noctx // t's end kills it
}

// StartCmd is Start for a command that was prepared. What it says where its output
// goes is left as it is: Stdout and Stderr then stay empty.
func StartCmd(t testing.TB, cmd *exec.Cmd, environ []string) *Program {
	t.Helper()
	p := &Program{Cmd: cmd, ended: make(chan struct{})}
	p.Cmd.Env = environ
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Stderr
	}
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Cmd.Wait() // the state tells how it ended
		close(p.ended)
		_, _ = p.Stderr.Write(nil) // whoever waits for a line waits in vain
	}()
	t.Cleanup(func() {
		p.Kill()
		log := p.Stderr.String()
		if strings.Contains(log, "panic:") {
			t.Error("it panicked")
		}
		if t.Failed() {
			t.Logf("the whole log of the program:\n%s", log)
		}
	})
	return p
}

// Serve runs the program in front of sim and waits until it is ready.
func Serve(t testing.TB, sim *simulator.Server, more ...string) *Program {
	t.Helper()
	p := Start(t, Environ(t, sim, more...))
	p.AwaitServing(t)
	if p.Admin != "" {
		p.AwaitReady(t)
	}
	return p
}

// AwaitReady waits until the program says that it is ready.
func (p *Program) AwaitReady(t testing.TB) {
	t.Helper()
	ask := exec.Command(Binary(), "healthcheck", "--wait", Patience.String()) //nolint:noctx // it bounds itself
	ask.Env = []string{"PROXY_ADMIN_LISTEN=" + p.Admin}
	if out, err := ask.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// address finds where it serves in the line that says so, in either format.
var address = regexp.MustCompile(`\b(listen|admin)"?[:=]"?([^\s",]+)`)

// AwaitServing waits for the line that says where it serves.
func (p *Program) AwaitServing(t testing.TB) {
	t.Helper()
	p.Stderr.Await(t, "the line that says where it serves", func(text string) bool {
		for line := range strings.Lines(text) {
			if !strings.Contains(line, "serving") || !strings.HasSuffix(line, "\n") {
				continue
			}
			for _, found := range address.FindAllStringSubmatch(line, -1) {
				if found[1] == "listen" {
					p.Listen = found[2]
				} else {
					p.Admin = found[2]
				}
			}
		}
		if p.Listen == "" && p.Ended() {
			t.Fatalf("it ended before it served: %v", p.Cmd.ProcessState)
		}
		return p.Listen != ""
	})
}

// Kill ends the program at once, if it has not ended.
func (p *Program) Kill() {
	_ = p.Cmd.Process.Kill() // it has most often ended by now
	<-p.ended
}

// Exit waits until the program has ended and returns its code.
func (p *Program) Exit(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Patience):
		t.Fatal("it does not end")
	}
	return p.Cmd.ProcessState.ExitCode()
}

// ExitWithin waits until the program has ended, for as long as it may take, and
// returns its code; -1 stands for a signal that ended it.
func (p *Program) ExitWithin(t testing.TB, bound time.Duration) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(bound):
		t.Fatalf("it did not end within %v", bound)
	}
	return p.Cmd.ProcessState.ExitCode()
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
func (p *Program) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Metric returns the value of one sample of /metrics; 0 where there is none.
func (p *Program) Metric(t testing.TB, sample string) float64 {
	t.Helper()
	res, err := http.Get("http://" + p.Admin + "/metrics") //nolint:noctx // the program answers or ends
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return Sample(t, res.Body, sample)
}

// Sample returns the value of one sample in what /metrics answers; 0 where there
// is none.
func Sample(t testing.TB, metrics io.Reader, sample string) float64 {
	t.Helper()
	lines := bufio.NewScanner(metrics)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), sample+" "); ok {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return 0
}

// Simulate starts a Mimecast without rate limits, which ends with t.
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

// Environ is a configuration that leads to sim, and what more says.
func Environ(t testing.TB, sim *simulator.Server, more ...string) []string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL=" + sim.URL, "MIMECAST_CA_FILE=" + ca,
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json",
	}, more...)
}
