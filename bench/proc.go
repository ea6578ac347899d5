package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a measured process and its children.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ends
	log  *os.File
}

// start starts a command on one core if taskset is installed.
func start(ctx context.Context, core int, env []string, name string, args ...string) (*process, error) {
	args = append([]string{name}, args...)
	if pinned() {
		args = append([]string{"taskset", "-c", strconv.Itoa(core)}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), env...)
	p := &process{cmd: cmd, done: make(chan struct{})}
	// A file, not a pipe: a pipe's reader would take CPU time from the load.
	var err error
	if p.log, err = os.CreateTemp("", "bench-log-"); err != nil {
		return nil, err
	}
	if err := os.Remove(p.log.Name()); err != nil { // the open file remains usable
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { defer close(p.done); _ = cmd.Wait() }() // the exit code does not matter
	return p, nil
}

// output returns the beginning of the process's output.
func (p *process) output() string {
	text := make([]byte, 2<<10)
	n, _ := p.log.ReadAt(text, 0)
	return string(text[:n])
}

// pinned reports whether processes are pinned to a core each.
func pinned() bool {
	_, err := exec.LookPath("taskset")
	return err == nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	defer func() { _ = p.log.Close() }()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// pids returns the process and all its descendants.
func (p *process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			data, _ := os.ReadFile(list)
			for child := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(child); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// cpu returns the tree's CPU time from the scheduler's own accounting, which is more
// precise than clock ticks.
func (p *process) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.pids() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			data, _ := os.ReadFile(task)
			ns, _, _ := strings.Cut(string(data), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// switches returns the voluntary and involuntary context switches of all threads in the
// tree. Each is a wake-up.
func (p *process) switches() int64 {
	var sum int64
	for _, pid := range p.pids() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, task := range tasks {
			data, _ := os.ReadFile(task)
			for l := range strings.Lines(string(data)) {
				if _, value, ok := strings.Cut(l, "ctxt_switches:"); ok {
					n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
					sum += n
				}
			}
		}
	}
	return sum
}

// memory returns a line of /proc/PID/status in bytes, summed over the tree: VmRSS is the
// resident memory, VmHWM its peak.
func (p *process) memory(line string) int64 {
	var sum int64
	for _, pid := range p.pids() {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for l := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(l, line+":"); ok {
				kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

// resetPeak resets VmHWM.
func (p *process) resetPeak() {
	for _, pid := range p.pids() {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	}
}

var errNotListening = errors.New("no response at the address")

// awaitPort waits until a process listens on address.
func awaitPort(ctx context.Context, address string) error {
	for range 500 {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%w %s", errNotListening, address)
}
