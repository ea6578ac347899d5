//go:build linux

package attack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
)

// asUser makes a command run as an unprivileged user if the test runs as root.
func asUser(cmd *exec.Cmd) *exec.Cmd {
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

func TestOtherProcessesOfTheUserCannotReadItsMemory(t *testing.T) {
	if err := os.Chmod(filepath.Dir(program.Binary()), 0o755); err != nil { // for the unprivileged user
		t.Fatal(err)
	}
	cmd := asUser(exec.Command(program.Binary()))
	cmd.Env = []string{
		"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=hidden-secret", "MIMECAST_BASE_URL=http://127.0.0.1:1",
		"PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json",
	}
	p := program.StartCmd(t, cmd).AwaitServing()
	read := func(pid int, file string) (string, error) {
		got, err := asUser(exec.Command("head", "-c", "4096", fmt.Sprintf("/proc/%d/%s", pid, file))).CombinedOutput()
		return string(got), err
	}
	for _, file := range []string{"environ", "mem", "maps", "auxv"} {
		if got, err := read(p.Cmd.Process.Pid, file); err == nil || !strings.Contains(got, "denied") {
			t.Errorf("/proc/PID/%s: %v, %q", file, err, got)
		}
	}
	if got, err := read(p.Cmd.Process.Pid, "cmdline"); err != nil || strings.Contains(got, "hidden") {
		t.Errorf("/proc/PID/cmdline: %v, %q", err, got)
	}
	if n := p.Metric("process_open_fds"); n == 0 {
		t.Error("it no longer counts its own file descriptors")
	}
	// For comparison: the user's other processes can be read.
	other := asUser(exec.Command("sleep", "60"))
	other.Env = []string{"A=plain"}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if got, err := read(other.Process.Pid, "environ"); err != nil || !strings.Contains(got, "plain") {
		t.Skipf("this machine lets no process read another: %v, %q", err, got)
	}
}
