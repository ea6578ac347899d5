//go:build unix

package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestSignalEndsSupportThatWaits(t *testing.T) {
	hangs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	p := start(t, []string{"PROXY_ADMIN_LISTEN=" + hangs.Addr().String()}, "support")
	conn, err := hangs.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 || !strings.Contains(p.stderr.String(), "signal") || p.stdout.String() != "" {
		t.Errorf("exit %d\n%s%s", code, p.stdout.String(), p.stderr.String())
	}
}
