//go:build linux

package hostile_test

import (
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

// lengths are around the sizes of read buffers, and some others.
var lengths = []int{1, 2, 15, 100, 1000, 4092, 4093, 4094, 4095, 4096, 4097, 4098, 8190, 8191, 8192, 8193, 12287, 16383, 32767, 65535, 65536, 70_000}

// endings are what a client does after it has sent a part of its header.
var endings = map[string]func(net.Conn){
	"closes":       func(c net.Conn) { c.Close() },
	"half-closes":  hostile.CloseWrite,
	"aborts":       hostile.Abort,
	"keeps silent": func(net.Conn) {},
}

func TestUnfinishedHeadersHoldNothingPastTheTimeForThem(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for _, spaced := range []bool{false, true} { // a long target, and long fields
			t.Run(network+map[bool]string{false: "/target", true: "/fields"}[spaced], func(t *testing.T) {
				t.Parallel()
				s := start(t, "PROXY_LISTEN="+listen(t, network))
				if err := s.whoami(); err != nil {
					t.Fatal(err)
				}
				s.client.CloseIdleConnections()
				before := s.resources()
				for _, end := range endings {
					for _, n := range lengths {
						text := "GET /" + strings.Repeat("a", max(n-5, 0))
						if spaced {
							text = hostile.FatHeader("/identity/whoami", n, 100)
						}
						end(s.say(s.Listen, text[:min(n, len(text))]))
					}
				}
				s.comesBackTo(before, readHeaderTimeout+slack)
				if err := s.whoami(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The header is complete, and the beginning of another request follows on the connection.
func TestWhatFollowsARequestHoldsNothingEither(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t)
	if err := s.whoami(); err != nil {
		t.Fatal(err)
	}
	s.client.CloseIdleConnections()
	before := s.resources()
	for _, end := range endings {
		for _, n := range lengths {
			c := s.say(s.Listen, request("GET /identity/whoami")+"GET /"+strings.Repeat("a", n))
			end(c)
		}
	}
	s.comesBackTo(before, readHeaderTimeout+slack)
}

func TestUnfinishedHeadersLeaveDescriptorsForOthers(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startLimited(t, "ulimit -n 256;")
			for _, address := range []string{s.Listen, s.Admin} {
				for range 300 {
					end(s.say(address, "GET /"+strings.Repeat("a", 4090)))
				}
			}
			// Silent connections are accepted in turns, each for the header timeout.
			program.AwaitWithin(s.T, 3*readHeaderTimeout+slack, "both ports answer", func() bool { return s.whoami() == nil && s.admin("/livez") == nil })
			s.Signal(syscall.SIGTERM)
			if code := s.ExitWithin(25*time.Second + shutdownGrace); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

// Clients that are rejected and do not read responses must not delay the shutdown.
func TestRejectedClientsThatReadNothingDoNotHoldUpTheShutdown(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const timeout = 25 * time.Second
	s := start(t, "PROXY_API_KEY="+gatewayKey, "PROXY_SHUTDOWN_TIMEOUT="+timeout.String())
	var writing sync.WaitGroup
	flood := strings.Repeat(request("GET /identity/whoami"), 1000)
	for range 3 {
		c := s.open(s.Listen)
		writing.Go(func() {
			for {
				if _, err := c.Write([]byte(flood)); err != nil {
					return
				}
			}
		})
	}
	// When the count stops, the responses fill the buffers.
	const rejected = `mimecast_proxy_requests_denied_total{reason="api_key_required"}`
	last := -1.0
	program.Await(s.T, "the flood stops", func() bool {
		now := s.Metric(rejected)
		stopped := now > 0 && now == last
		last = now
		time.Sleep(time.Second / 2)
		return stopped
	})
	began := time.Now()
	s.Signal(syscall.SIGTERM)
	s.ExitWithin(timeout + shutdownGrace + slack)
	took := time.Since(began)
	t.Logf("%.0f requests were rejected; it ended %v after SIGTERM", last, took.Round(time.Millisecond))
	if took > timeout*4/5 {
		t.Errorf("three clients without a key held up the shutdown for %v", took)
	}
	writing.Wait()
}
