package app

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestPageThatNobodyUsesIsGone(t *testing.T) {
	var address string
	p := Env{Environ: []string{"HOME=" + t.TempDir(), "XDG_CONFIG_HOME=" + t.TempDir(), "AppData=" + t.TempDir()}, Stdout: io.Discard, Stderr: io.Discard}
	p.Listen = func(ctx context.Context, network, at string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, at)
		if err == nil {
			address = l.Addr().String()
		}
		return l, err
	}
	c, err := p.newConnector(t.Context(), ConnectOptions{Web: true, NoBrowser: true}, "")
	if err != nil {
		t.Fatal(err)
	}
	c.lifetime = 50 * time.Millisecond
	if _, err = p.connectOnPage(t.Context(), c, ""); err == nil || !strings.Contains(err.Error(), "no connection was made within 50ms: nothing was stored") {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("the page is still there")
	}
}
