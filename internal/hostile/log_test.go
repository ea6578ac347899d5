//go:build linux

package hostile_test

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// logPipe is the read end of a program's stderr, a pipe that holds one page.
type logPipe struct {
	*os.File
	*stand
}

// startPiped starts the program and reads its log until the addresses are known. Then it
// stops reading.
func startPiped(t *testing.T, o simulator.Options, environ ...string) *logPipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	o.RequestLog = -1
	sim := program.Simulate(t, o)
	cmd := exec.Command(program.Binary())
	cmd.Env = program.Environ(t, sim, environ...)
	cmd.Stdout, cmd.Stderr = w, w // as with 2>&1 | less
	p := program.StartCmd(t, cmd)
	w.Close() // the program has its own descriptor
	said := make(chan struct{})
	go func() {
		defer close(said)
		b := make([]byte, 1)
		for !strings.Contains(p.Stderr.String(), "serving") || !strings.HasSuffix(p.Stderr.String(), "\n") {
			n, err := r.Read(b)
			if err != nil {
				return
			}
			_, _ = p.Stderr.Write(b[:n]) // never fails
		}
	}()
	p.AwaitServing()
	<-said
	p.AwaitReady()
	return &logPipe{r, watched(t, sim, p)}
}

const (
	fillClients  = 8
	fillRequests = fillClients * 200
)

// fill makes enough requests to fill the log's pipe.
func (l *logPipe) fill() {
	l.Helper()
	var all sync.WaitGroup
	for range fillClients {
		all.Go(func() {
			for range fillRequests / fillClients {
				if err := l.whoami(); err != nil {
					l.Errorf("nobody reads the log: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

const dropped = "mimecast_proxy_log_lines_dropped_total"

var levels = []string{"info", "trace"}

func TestLogThatNobodyReadsDelaysNoRequest(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			l := startPiped(t, simulator.Options{}, "PROXY_LOG_LEVEL="+level, "PROXY_SHUTDOWN_TIMEOUT=1s")
			l.fill()
			// The buffer for unread lines is limited, so lines are dropped eventually.
			for i := 0; level == "trace" && i < 10 && l.Metric(dropped) == 0 && !t.Failed(); i++ {
				l.fill()
			}
			if level == "trace" && l.Metric(dropped) == 0 {
				t.Error("no lines were counted as dropped")
			}
			l.Signal(syscall.SIGTERM)
			if code := l.ExitWithin(time.Second + shutdownGrace + slack/2); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

func TestLogThatNobodyReadsDelaysNoRenewal(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	l := startPiped(t, simulator.Options{TokenTTL: 3 * time.Second}, "PROXY_LOG_LEVEL=trace", "PROXY_SHUTDOWN_TIMEOUT=1s")
	l.fill()
	before := l.sim.TokenRequests()
	program.Await(l.T, "two renewals", func() bool {
		if err := l.whoami(); err != nil {
			t.Fatal(err)
		}
		return l.sim.TokenRequests() >= before+2
	})
}

// Requests that wait for Mimecast make the second signal necessary.
func TestLogThatNobodyReadsDelaysNoShutdown(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, second := range []bool{false, true} {
		t.Run(map[bool]string{false: "timeout", true: "second signal"}[second], func(t *testing.T) {
			t.Parallel()
			timeout := time.Second
			if second {
				timeout = 10 * time.Minute
			}
			l := startPiped(t, simulator.Options{}, "PROXY_LOG_LEVEL=debug", "PROXY_SHUTDOWN_TIMEOUT="+timeout.String())
			l.sim.AddFault(simulator.Fault{Path: "/hang", Delay: simulator.Forever})
			for range 60 { // each logs lines at its start, then waits
				l.say(l.Listen, request("GET /identity/../x")+request("GET /hang"))
			}
			program.Await(l.T, "they wait for Mimecast", func() bool { return l.Metric("mimecast_proxy_requests_in_flight") >= 60 })
			l.Signal(syscall.SIGINT)
			if second {
				program.AwaitWithin(l.T, slack, "the drain", func() bool { return l.admin("/readyz") != nil })
				l.Signal(syscall.SIGINT)
				timeout = 0
			}
			if code := l.ExitWithin(timeout + shutdownGrace + slack/2); code != 1 { // requests were aborted
				t.Errorf("exit %d", code)
			}
		})
	}
}

// The log's reader closes the pipe, as head does once it has enough.
func TestReaderOfTheLogThatGoesAwayIsNoReasonToEnd(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			l := startPiped(t, simulator.Options{TokenTTL: 3 * time.Second}, "PROXY_LOG_LEVEL="+level, "PROXY_SHUTDOWN_TIMEOUT=1s")
			l.Close()
			before := l.sim.TokenRequests()
			for range 100 {
				if err := l.whoami(); err != nil {
					t.Fatal(err)
				}
			}
			program.Await(l.T, "lines that are dropped", func() bool { return l.Metric(dropped) > 0 })
			program.Await(l.T, "a renewal", func() bool { return l.sim.TokenRequests() > before && l.whoami() == nil })
			l.Signal(syscall.SIGTERM)
			if code := l.ExitWithin(time.Second + shutdownGrace + slack/2); code != 0 {
				t.Errorf("it ended with %v", l.Cmd.ProcessState)
			}
		})
	}
}

// When the log is read again, it continues with whole lines, as far as they were buffered.
func TestLogThatIsReadAgainGoesOnInWholeLines(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	l := startPiped(t, simulator.Options{}, "PROXY_SHUTDOWN_TIMEOUT=1s")
	l.fill()
	if t.Failed() {
		return
	}
	var rest program.Output
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 64<<10)
		for {
			n, err := l.Read(b)
			_, _ = rest.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	program.Await(t, "a line for each request, read or counted as dropped", func() bool {
		return strings.Count(rest.String(), `"msg":"request"`)+int(l.Metric(dropped)) == fillRequests
	})
	l.Signal(syscall.SIGTERM)
	l.ExitWithin(time.Second + shutdownGrace + slack/2)
	<-read
	for line := range strings.Lines(rest.String()) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}\n") {
			t.Errorf("no whole line: %q", line)
		}
	}
	if text := rest.String(); !strings.Contains(text, `"drained"`) {
		t.Errorf("the end is missing in %d bytes: %s", len(text), text[max(0, len(text)-500):])
	}
}
