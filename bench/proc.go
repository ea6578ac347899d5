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

// process is one that is measured, with its children.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed at its end
	log  *os.File
}

// start starts a command on one core, if taskset is installed.
func start(ctx context.Context, core int, env []string, name string, args ...string) (*process, error) {
	args = append([]string{name}, args...)
	if pinned() {
		args = append([]string{"taskset", "-c", strconv.Itoa(core)}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), env...)
	p := &process{cmd: cmd, done: make(chan struct{})}
	// A file and not a pipe, whose reader would take time from the load.
	var err error
	if p.log, err = os.CreateTemp("", "bench-log-"); err != nil {
		return nil, err
	}
	if err := os.Remove(p.log.Name()); err != nil { // it lasts as long as it is open
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { defer close(p.done); _ = cmd.Wait() }() // its exit code does not matter
	return p, nil
}

// output returns the beginning of what the process wrote.
func (p *process) output() string {
	text := make([]byte, 2<<10)
	n, _ := p.log.ReadAt(text, 0)
	return string(text[:n])
}

// pinned reports whether processes are kept to a core each.
func pinned() bool {
	_, err := exec.LookPath("taskset")
	return err == nil
}

// stop ends the process and waits for that.
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

// pids returns the process and all that descend from it.
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

// cpu returns the processor time that the tree has used, from the scheduler's
// own account, in which a tick's length does not show.
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

// switches returns how often the threads of the tree have given the processor up, or had
// to: each is a wake-up.
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

// memory returns a line of /proc/PID/status, summed over the tree, in bytes:
// VmRSS is what is resident, VmHWM the most that ever was.
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

// awaitPort waits until something listens.
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
