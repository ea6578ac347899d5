package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// process is the program under test.
type process struct {
	cmd *exec.Cmd
	// listen and at are the addresses of the proxy and admin listeners, as hostile.Dial
	// takes them.
	listen, at    string
	client, admin *http.Client
	log           *watcher
	ended         chan struct{}
}

// watcher reads the program's log. It finds the addresses, and the lines that must not
// occur.
type watcher struct {
	never  []string // texts that must not occur
	mu     sync.Mutex
	rest   []byte // an incomplete line
	listen chan [2]string
	bad    []string // the first few lines with such a text
	lines  int
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.line(line)
		w.rest = append(w.rest[:0:0], rest...)
	}
}

func (w *watcher) line(line []byte) {
	w.lines++
	var said struct{ Msg, Listen, Admin string }
	if json.Unmarshal(line, &said) == nil && said.Msg == "serving" {
		select {
		case w.listen <- [2]string{said.Listen, said.Admin}:
		default: // already reported
		}
	}
	for _, never := range w.never {
		if bytes.Contains(line, []byte(never)) && len(w.bad) < 5 {
			w.bad = append(w.bad, string(line))
		}
	}
}

// faults returns the lines that must not occur.
func (w *watcher) faults() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.bad)
}

// build builds the program in a new directory, which the caller must remove.
func build() (dir, path string, err error) {
	if dir, err = os.MkdirTemp("", "soak"); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "mimecast-proxy")
	if err = program.Build(path); err != nil {
		return "", "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, path, nil
}

// environ returns a configuration for sim. It writes sim's certificate authority into dir.
func environ(sim *simulator.Server, dir string, more ...string) ([]string, error) {
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		return nil, err
	}
	return append([]string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_TOKEN_URL=" + sim.URL + "/oauth/token", "MIMECAST_CA_FILE=" + ca,
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json", "PROXY_REPLAY_LIMIT=64KiB",
	}, more...), nil
}

// launch starts the program, which runs until stop.
func launch(path string, environ []string) (*process, error) {
	p := &process{ended: make(chan struct{}), log: &watcher{listen: make(chan [2]string, 1), never: []string{"panic", "Bearer ey", simulator.DefaultClientSecret, swappedSecret}}}
	p.client, p.admin = p.to(&p.listen, false), p.to(&p.at, true)
	p.cmd = exec.Command(path) //nolint:noctx // stop ends it
	p.cmd.Env = environ
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { defer close(p.ended); _ = p.cmd.Wait() }() // only the end matters, not the exit code
	select {
	case at := <-p.log.listen:
		p.listen, p.at = at[0], at[1]
		return p, nil
	case <-p.ended:
		return nil, errors.New("the program ended at once")
	case <-time.After(time.Minute):
		p.stop()
		return nil, errors.New("the program does not serve")
	}
}

// url is the base URL of requests to every listener.
const url = "http://localhost"

// to returns a client for one listener.
func (p *process) to(address *string, anew bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 1000, DisableCompression: true, DisableKeepAlives: anew,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return hostile.Dial(ctx, *address) },
	}}
}

// stop stops the program if it is still running.
func (p *process) stop() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	if !p.endsWithin(time.Minute) {
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) endsWithin(bound time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(bound):
		return false
	}
}

// sample is one measurement of the program.
type sample struct {
	resident    int64 // bytes
	goroutines  int
	descriptors int
	inFlight    int
	kept        int // bytes of kept bodies
	requests    int
	heap        int64 // bytes in use
}

func (p *process) look(ctx context.Context) (s sample, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return s, err
	}
	res, err := p.admin.Do(req)
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, s.read(res.Body)
}

func (s *sample) read(metrics io.Reader) error {
	lines := bufio.NewScanner(metrics)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // a comment line
		}
		switch name {
		case "process_resident_memory_bytes":
			s.resident = int64(v)
		case "go_memstats_heap_inuse_bytes":
			s.heap = int64(v)
		case "process_open_fds":
			s.descriptors = int(v)
		case "go_goroutines":
			s.goroutines = int(v)
		case "mimecast_proxy_requests_in_flight":
			s.inFlight = int(v)
		case "mimecast_proxy_replay_buffer_bytes":
			s.kept = int(v)
		case "mimecast_proxy_requests_total":
			s.requests += int(v)
		}
	}
	return lines.Err()
}
