//go:build linux

package hostile_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

// unreadClients makes the program write responses that clients do not read. The sizes of
// the first response vary, so that some just fill a socket's buffer and block the second
// response.
func (s *stand) unreadClients(network string, n int) {
	s.Helper()
	most := 256 << 10 // about what a Unix socket buffers
	if network == "tcp" {
		most = 8 << 20
	}
	last := []string{"GET /identity/whoami", "GET /livez", "GET /identity/../x", "POST /api/archive/get-file?id=x&size=64MiB"}
	for i := range n {
		first := request(fmt.Sprintf("POST /api/archive/get-file?id=x&size=%d", most*(i+1)/n), "Content-Length: 0")
		c := s.say(s.Listen, first+strings.Repeat(request(last[i%len(last)], "Content-Length: 0"), 1+i%7))
		if i%3 > 0 {
			hostile.CloseWrite(c)
		}
	}
}

func TestUnreadResponsesDoNotHoldUpTheShutdown(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for _, second := range []bool{false, true} {
			t.Run(network+map[bool]string{false: "/timeout", true: "/second signal"}[second], func(t *testing.T) {
				t.Parallel()
				timeout := time.Second
				if second {
					timeout = 10 * time.Minute
				}
				s := start(t, "PROXY_LISTEN="+listen(t, network), "PROXY_SHUTDOWN_TIMEOUT="+timeout.String())
				s.unreadClients(network, 60)
				// Every request has begun, and everything that fits in the buffers is
				// written.
				const written = "mimecast_proxy_requests_in_flight"
				last, since := -1.0, time.Now()
				program.Await(s.T, "all of them wait", func() bool {
					if now := s.Metric(written); now != last {
						last, since = now, time.Now()
					}
					return time.Since(since) > time.Second
				})
				s.Signal(syscall.SIGTERM)
				bound := timeout + shutdownGrace
				if second {
					s.Stderr.Await(t, "the drain", func(log string) bool { return strings.Contains(log, `"draining"`) })
					s.Signal(syscall.SIGTERM)
					bound = shutdownGrace
				}
				began := time.Now()
				s.ExitWithin(bound + slack/2)
				t.Logf("%.0f requests were in flight; it ended after %v", last, time.Since(began).Round(time.Millisecond))
			})
		}
	}
}
