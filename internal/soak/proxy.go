package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"mimecast-proxy/internal/relay"
	"mimecast-proxy/simulator"
)

// process is the program under test.
type process struct {
	cmd        *exec.Cmd
	dir        string
	url, admin string
	client     *http.Client
	log        *watcher
	ended      chan struct{}
}

// watcher reads the program's log: where it serves, and what must not be in it.
type watcher struct {
	mu     sync.Mutex
	rest   []byte // of an unfinished line
	listen chan [2]string
	bad    []string // lines with a secret or a panic, the first few
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
	var said struct{ Listen, Admin string }
	if json.Unmarshal(line, &said) == nil && said.Listen != "" {
		w.listen <- [2]string{"http://" + said.Listen, "http://" + said.Admin}
	}
	for _, never := range []string{"panic", "Bearer ey", simulator.DefaultClientSecret} {
		if bytes.Contains(line, []byte(never)) && len(w.bad) < 5 {
			w.bad = append(w.bad, string(line))
		}
	}
}

// start builds the program and runs it in front of the network.
func start(ctx context.Context, sim *simulator.Server, net *relay.Relay) (*process, error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return nil, err
	}
	path, ca := filepath.Join(dir, "mimecast-proxy"), filepath.Join(dir, "ca.pem")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "mimecast-proxy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the program: %w: %s", err, out)
	}
	if err := os.WriteFile(ca, sim.CA, 0o600); err != nil {
		return nil, err
	}
	p := &process{dir: dir, ended: make(chan struct{}), log: &watcher{listen: make(chan [2]string, 1)}, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true},
	}}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), path)
	p.cmd.Env = []string{
		"MIMECAST_CLIENT_ID=" + simulator.DefaultClientID, "MIMECAST_CLIENT_SECRET=" + simulator.DefaultClientSecret,
		"MIMECAST_BASE_URL=https://" + net.Addr(), "MIMECAST_TOKEN_URL=" + sim.URL + "/oauth/token", "MIMECAST_CA_FILE=" + ca,
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json",
		"PROXY_REPLAY_LIMIT=64KiB", "PROXY_RATE_LIMIT_WAIT=3s", "PROXY_RESPONSE_TIMEOUT=5s", "PROXY_DIAL_TIMEOUT=3s",
	}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { defer close(p.ended); _ = p.cmd.Wait() }() // that it ended is what matters
	select {
	case at := <-p.log.listen:
		p.url, p.admin = at[0], at[1]
		return p, nil
	case <-p.ended:
		return nil, errors.New("the program ended at once")
	case <-time.After(time.Minute):
		p.stop()
		return nil, errors.New("the program does not serve")
	}
}

func (p *process) stop() {
	p.client.CloseIdleConnections()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = os.RemoveAll(p.dir) // the system clears it up some day
}

// sample is what a look at the program shows.
type sample struct {
	resident    int64 // bytes
	goroutines  int
	descriptors int
	inFlight    int
	kept        int // bytes of bodies
	requests    int
	heap        int64 // bytes in use
}

func (p *process) look(ctx context.Context) (s sample, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.admin+"/metrics", nil)
	if err != nil {
		return s, err
	}
	res, err := p.client.Do(req)
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
			continue // a comment
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
