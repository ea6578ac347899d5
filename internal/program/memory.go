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

// memoryFiles are the files of a cgroup: those of version 1 or of version 2.
type memoryFiles struct{ root, limit, swap, peak, events string }

var memoryVersions = []memoryFiles{
	{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"},
	{"/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.peak", "memory.events"},
}

// LimitMemory makes a cgroup with a limit in bytes, which is removed when t ends.
// The error says why this machine allows none.
func LimitMemory(t testing.TB, limit int64) (*Memory, error) {
	t.Helper()
	var last error
	for _, names := range memoryVersions {
		dir, err := os.MkdirTemp(names.root, "mimecast-proxy")
		if err != nil {
			last = err
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) }) // after the process has left it
		if err := os.WriteFile(filepath.Join(dir, names.limit), fmt.Append(nil, limit), 0); err != nil {
			last = err
			continue
		}
		swap := limit // version 1 counts memory and swap together
		if names.swap == "memory.swap.max" {
			swap = 0
		}
		_ = os.WriteFile(filepath.Join(dir, names.swap), fmt.Append(nil, swap), 0) // there may be no swap to limit
		return &Memory{dir: dir, limit: limit, names: names}, nil
	}
	return nil, fmt.Errorf("no cgroup that limits memory can be made here: %w", last)
}

// Enter returns the beginning of a command line of the shell's that moves the
// shell, and what it executes, into the cgroup.
func (m *Memory) Enter() string { return "echo $$ > " + m.dir + "/cgroup.procs;" }

// Peak returns the most memory that the cgroup has used, in bytes.
func (m *Memory) Peak(t testing.TB) int64 {
	t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(m.read(t, m.names.peak)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Kills returns how many processes were killed for want of memory.
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

// String returns how much was used.
func (m *Memory) String() string {
	text, err := os.ReadFile(filepath.Join(m.dir, m.names.peak))
	if err != nil {
		return err.Error()
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return fmt.Sprintf("%.1f MiB at most in a cgroup of %.0f MiB", float64(n)/(1<<20), float64(m.limit)/(1<<20))
}

// MiB is a number of bytes in mebibytes.
func MiB(bytes int64) float64 { return float64(bytes) / (1 << 20) }
