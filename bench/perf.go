package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Counts per request.
const (
	instructions = "user instructions"
	systemCalls  = "system calls"
	writes       = "writes"
)

var counterRows = []string{instructions, systemCalls, writes}

// counters maps the events that perf can count here to the counts they add to.
type counters map[string]string

// events are the events to look for. Instructions need the processor's own counters, which
// many virtual machines do not have.
var events = counters{
	"instructions:u":              instructions,
	"raw_syscalls:sys_enter":      systemCalls,
	"syscalls:sys_enter_write":    writes,
	"syscalls:sys_enter_writev":   writes,
	"syscalls:sys_enter_sendto":   writes,
	"syscalls:sys_enter_sendmsg":  writes,
	"syscalls:sys_enter_sendfile": writes,
	"syscalls:sys_enter_splice":   writes,
}

// findCounters tries each event. It also returns the counts that are not available.
func findCounters(ctx context.Context) (found counters, missing []string) {
	found = counters{}
	for event, row := range events {
		out, err := exec.CommandContext(ctx, "perf", "stat", "-x,", "-e", event, "true").CombinedOutput()
		if err == nil && !strings.Contains(string(out), "<not ") {
			found[event] = row
		}
	}
	for _, row := range counterRows {
		if !found.has(row) {
			missing = append(missing, row)
		}
	}
	return found, missing
}

// has reports whether an event adds to row.
func (c counters) has(row string) bool { return slices.Contains(slices.Collect(maps.Values(c)), row) }

// count counts a process's events during part.
func (c counters) count(ctx context.Context, p *process, part func()) (map[string]float64, error) {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("bench-perf-%d", os.Getpid()))
	defer func() { _ = os.Remove(file) }()
	var pids []string
	for _, pid := range p.pids() {
		pids = append(pids, strconv.Itoa(pid))
	}
	names := slices.Sorted(maps.Keys(c))
	cmd := exec.CommandContext(ctx, "perf", "stat", "-x,", "-o", file, "-e", strings.Join(names, ","), "-p", strings.Join(pids, ","))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting perf: %w", err)
	}
	err := awaitPerf(ctx, cmd.Process.Pid)
	if err == nil {
		part()
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // the signal ended it
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading what perf counted: %w", err)
	}
	return c.parse(string(text)), nil
}

var errPerf = errors.New("perf did not begin to count within 10s")

// awaitPerf waits until perf has opened all its events.
func awaitPerf(ctx context.Context, pid int) error {
	last := 0
	for range 100 {
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		open := 0
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, file := range files {
			if target, _ := os.Readlink(file); strings.Contains(target, "perf_event") {
				open++
			}
		}
		if open > 0 && open == last {
			return nil
		}
		last = open
	}
	return errPerf
}

// parse sums perf's lines, VALUE,UNIT,EVENT,….
func (c counters) parse(text string) map[string]float64 {
	counts := map[string]float64{}
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ",")
		if len(fields) < 3 || c[fields[2]] == "" {
			continue
		}
		if n, err := strconv.ParseFloat(fields[0], 64); err == nil {
			counts[c[fields[2]]] += n
		}
	}
	return counts
}
