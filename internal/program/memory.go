package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Memory is a cgroup that limits the memory of one process, as a container does.
type Memory struct {
	dir   string
	limit int64
	names memoryFiles
}

// memoryFiles are the names of a cgroup's files, in version 1 or version 2.
type memoryFiles struct{ root, limit, swap, peak, events string }

var memoryVersions = []memoryFiles{
	{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"},
	{"/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.peak", "memory.events"},
}

// LimitMemory creates a cgroup with a limit in bytes and removes it when t ends. The error
// states why this machine cannot limit memory.
func LimitMemory(t testing.TB, limit int64) (*Memory, error) {
	t.Helper()
	var last error
	for _, names := range memoryVersions {
		dir, err := os.MkdirTemp(names.root, "mimecast-proxy")
		if err != nil {
			last = err
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // the process has left it by then
		if err := os.WriteFile(filepath.Join(dir, names.limit), fmt.Append(nil, limit), 0); err != nil {
			last = err
			continue
		}
		swap := limit // version 1 counts memory and swap together
		if names.swap == "memory.swap.max" {
			swap = 0
		}
		_ = os.WriteFile(filepath.Join(dir, names.swap), fmt.Append(nil, swap), 0) // the machine may have no swap
		return &Memory{dir: dir, limit: limit, names: names}, nil
	}
	return nil, fmt.Errorf("no cgroup that limits memory can be made here: %w", last)
}

// Enter returns a shell command that moves the shell, and all that it executes, into the
// cgroup.
func (m *Memory) Enter() string { return "echo $$ > " + m.dir + "/cgroup.procs;" }

// Peak returns the cgroup's peak memory use in bytes.
func (m *Memory) Peak(t testing.TB) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(m.read(t, m.names.peak)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Kills returns the number of processes that the OOM killer killed.
func (m *Memory) Kills(t testing.TB) (n int) {
	t.Helper()
	for line := range strings.Lines(m.read(t, m.names.events)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	return 0
}

func (m *Memory) read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// String returns the peak use and the limit as text.
func (m *Memory) String() string {
	text, err := os.ReadFile(filepath.Join(m.dir, m.names.peak))
	if err != nil {
		return err.Error()
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return fmt.Sprintf("%.1f MiB at most in a cgroup of %.0f MiB", float64(n)/(1<<20), float64(m.limit)/(1<<20))
}

// MiB converts bytes to mebibytes.
func MiB(bytes int64) float64 { return float64(bytes) / (1 << 20) }
