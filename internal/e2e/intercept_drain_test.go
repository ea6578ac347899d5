//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// ticker starts a server that sends each client a byte periodically, or nothing at all.
func ticker(t *testing.T, sends bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for sends {
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
					<-time.After(20 * time.Millisecond)
				}
				_, _ = c.Read(make([]byte, 1))
			}()
		}
	}()
	return l.Addr().String()
}

// openTunnel opens a tunnel through a forward proxy. It is closed when the test ends.
func openTunnel(t *testing.T, address, target string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := program.Dial(t, address)
	t.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target); err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewReader(conn)
	res, err := http.ReadResponse(buffered, &http.Request{Method: http.MethodConnect})
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	res.Body.Close()
	return conn, buffered
}

func TestDrainThatCutsTunnelsFails(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for name, c := range map[string]struct {
		begin func(t *testing.T, p *program.Program, sim *simulator.Server)
		code  int
		says  string
	}{
		"a silent tunnel": {func(t *testing.T, p *program.Program, _ *simulator.Server) {
			openTunnel(t, forwardProxy(t, p), ticker(t, false))
		}, 0, `"msg":"drained"`},
		"a tunnel that carries bytes": {func(t *testing.T, p *program.Program, _ *simulator.Server) {
			_, carried := openTunnel(t, forwardProxy(t, p), ticker(t, true))
			if _, err := carried.ReadByte(); err != nil {
				t.Fatal(err)
			}
		}, 1, "0 requests were cut, and 1 tunnels"},
		"a request inside": {func(t *testing.T, p *program.Program, sim *simulator.Server) {
			sim.AddFault(simulator.Fault{Path: "/identity/", Delay: simulator.Forever})
			answered := make(chan string, 1)
			client := interceptedClient(t, p, "")
			go func() {
				res, err := client.Get("https://eu-api.mimecast.com/identity/whoami")
				if err != nil {
					answered <- err.Error()
					return
				}
				res.Body.Close()
				answered <- res.Header.Get("X-Mimecast-Proxy-Error")
			}()
			t.Cleanup(func() {
				if got := <-answered; got != "shutting_down" {
					t.Errorf("the request that was cut got %q", got)
				}
			})
			program.Await(t, "the request", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 1 })
		}, 1, "1 requests were cut"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := program.Simulate(t, simulator.Options{})
			p := program.Serve(t, sim, "PROXY_INTERCEPT_LISTEN=127.0.0.1:0", "PROXY_SHUTDOWN_TIMEOUT=3s")
			c.begin(t, p, sim)
			p.Signal(syscall.SIGTERM)
			code, text := p.Exit(), ""
			if text = p.Stderr.String(); code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("exit %d, want %d and %s:\n%s", code, c.code, c.says, text)
			}
			if drained := strings.Contains(text, `"msg":"drained"`); drained != (c.code == 0) {
				t.Errorf("drained: %t", drained)
			}
		})
	}
}
