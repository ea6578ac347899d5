package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Destinations of writes.
const (
	toClient   = "to the client"
	toUpstream = "to the upstream"
	toLog      = "to the log"
	toItself   = "to the proxy itself" // how Go wakes its poller
)

var destinations = []string{toClient, toUpstream, toLog, toItself}

// tracedRequests is the number of requests while strace counts.
const tracedRequests = 2000

// straceArgs returns an strace command that stops a process only at its writes, so that
// everything else runs at full speed. The process keeps its ID.
func straceArgs(file string) []string {
	return []string{"strace", "-D", "-f", "--seccomp-bpf", "-yy", "-s0", "-qq", "-e", "trace=write,writev,sendto,sendmsg,sendfile,splice", "-e", "signal=none", "-o", file}
}

// hasStrace reports whether strace is installed and allowed to trace.
func hasStrace(ctx context.Context) bool {
	args := append(straceArgs(os.DevNull), "true")
	return exec.CommandContext(ctx, args[0], args[1:]...).Run() == nil
}

// countWrites returns a proxy's writes per request by destination, for a fixed number of
// requests and connections.
func (b *bench) countWrites(ctx context.Context, l launch, connections int) (map[string]float64, error) {
	file := filepath.Join(b.dir, "strace.txt")
	l.prefix = straceArgs(file)
	p, err := b.startProxy(ctx, l)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	one := load{address: proxyAddress, open: l.open, request: get(smallResponse), connections: connections, requests: tracedRequests, warmup: 200 * time.Millisecond, duration: time.Minute}
	var before, after map[string]int
	m, err := one.run(ctx, func(part func()) {
		before, err = settledWrites(ctx, file)
		part()
		after, err = settledWrites(ctx, file)
	})
	if err != nil {
		return nil, err
	}
	if m.Errors > 0 {
		return nil, fmt.Errorf("%s: %d errors, such as: %w", l.name, m.Errors, m.failure)
	}
	counts := map[string]float64{}
	for _, to := range destinations {
		counts[to] = float64(after[to]-before[to]) / float64(m.Requests)
	}
	return counts, nil
}

var errUnsettled = errors.New("the writes of an idle proxy do not end")

// settledWrites returns the writes so far, once no more follow, such as the log's.
func settledWrites(ctx context.Context, file string) (map[string]int, error) {
	last := int64(-1)
	for range 50 {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		if info.Size() == last {
			return readWrites(file)
		}
		last = info.Size()
	}
	return nil, errUnsettled
}

func readWrites(file string) (map[string]int, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	counts := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if to := destination(lines.Text()); to != "" {
			counts[to]++
		}
	}
	return counts, lines.Err()
}

// destination returns where a write goes, or "" if the line does not begin a write. A line
// is PID CALL(FD<TCP:[LOCAL->REMOTE]>, …
func destination(line string) string {
	_, call, ok := strings.Cut(strings.TrimLeft(line, " "), " ")
	_, args, isCall := strings.Cut(call, "(")
	if call = strings.TrimLeft(call, " "); !ok || !isCall || strings.HasPrefix(call, "<") {
		return ""
	}
	fd, _, _ := strings.Cut(args, ",")
	local, remote, _ := strings.Cut(fd, "->")
	switch {
	case strings.HasPrefix(fd, "1<"), strings.HasPrefix(fd, "2<"):
		return toLog
	case strings.HasPrefix(remote, upstreamAddress):
		return toUpstream
	case strings.Contains(local, "<TCP:["):
		return toClient
	}
	return toItself
}

// measureWrites adds the writes per request by destination, which noise does not affect.
func (b *bench) measureWrites(ctx context.Context) error {
	if !b.strace {
		return nil
	}
	s := b.report.section("writes", "Writes per request", fmt.Sprintf("Counted by strace over %d requests of 1 KiB over HTTP/2.", tracedRequests))
	s.names = ladder
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL}, ladder, func(name string) error {
		for _, w := range []workload{{"1 connection", 1, 0}, {"16 connections", 16, 0}} {
			counts, err := b.countWrites(ctx, launch{name: name, http2: true}, w.connections)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, to := range destinations {
				s.add(to+", "+w.name, "", name, counts[to])
			}
		}
		return nil
	})
}
