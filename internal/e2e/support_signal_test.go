//go:build unix

package e2e

import (
	"net"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
)

func TestSignalEndsSupportThatWaits(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	p := program.Start(t, []string{"PROXY_ADMIN_LISTEN=" + hangs.Addr().String()}, "support")
	conn, err := hangs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 1 || !strings.Contains(p.Stderr.String(), "signal") || p.Stdout.String() != "" {
		t.Errorf("exit %d\n%s%s", code, p.Stdout.String(), p.Stderr.String())
	}
}
