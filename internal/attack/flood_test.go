//go:build unix

package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

// flood is the number of connections that a hostile client opens.
const flood = 10_000

// affordable returns how many of n connections the file descriptor limits of this process
// and the program allow.
func affordable(t *testing.T, n int) int {
	t.Helper()
	const others = 500
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(min(limit.Max, 1<<20)) - others; most < n { // Go raises the soft limit automatically
		t.Logf("only %d of %d connections: this machine allows %d open files; raise ulimit -Hn", most, n, limit.Max)
		return most
	}
	return n
}

// open opens n connections and sends on each what say returns.
func (s *stand) open(n int, say func(i int) string) (conns []net.Conn) {
	s.t.Helper()
	for i := range n {
		conn := program.Dial(s.t, s.Listen)
		if _, err := io.WriteString(conn, say(i)); err != nil {
			s.t.Fatalf("connection %d: %v", i, err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func TestTenThousandIdleAndSlowConnectionsLeaveItServing(t *testing.T) {
	suite.Slow(t)
	// The next test covers the limit of concurrent requests.
	const key = "the-key-of-a-flooded-proxy"
	s := newStand(t, "PROXY_API_KEY="+key, "PROXY_MAX_REQUESTS=20000")
	n := affordable(t, flood)
	slow := []string{
		"", // nothing
		"GET /identity/whoami HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",      // an incomplete header
		"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx", // an incomplete body
		"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
		request(whoami, local), // a complete request, then nothing
	}
	// Beyond the limit, connections are accepted and closed, so a write may fail.
	for i := range n {
		conn := program.Dial(t, s.Listen)
		_, _ = io.WriteString(conn, slow[i%len(slow)])
	}
	for range 100 {
		s.passes(request(whoami, local, "X-Proxy-Key: "+key))
	}
	t.Logf("%d connections were opened, the program holds %v files open and serves", n, s.Metric("process_open_fds"))
	// How many requests are rejected for a missing key, or for the request limit, depends
	// on the machine.
	for _, code := range []event.Code{event.APIKeyRequired, event.TooBusy} {
		last := -1.0
		program.Await(t, "the last rejection", func() bool {
			now := s.Metric(fmt.Sprintf("mimecast_proxy_requests_denied_total{reason=%q}", code))
			settled := now == last
			last = now
			time.Sleep(200 * time.Millisecond)
			return settled
		})
		if last > float64(n) || last == 0 && code == event.APIKeyRequired {
			t.Errorf("%v %s for %d connections", last, code, n)
		}
		if last > 0 {
			s.denied[string(code)] = last
		}
	}
}

func TestPastTheLimitOfRequestsItIsBusyAndRecovers(t *testing.T) {
	const limit = 8
	s := newStand(t, "PROXY_MAX_REQUESTS="+strconv.Itoa(limit))
	slow := s.open(limit, func(int) string {
		return "POST /_simulator/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx"
	})
	awaitInFlight(s, limit)
	for range 3 {
		s.refuses(503, event.TooBusy, request(whoami, local))
	}
	if got := send(t, s.Listen, request(whoami, local), 1); len(got) != 1 || got[0].header.Get("Retry-After") != "1" {
		t.Errorf("%+v", got)
	}
	s.denied[string(event.TooBusy)]++
	// A client frees its place when its request ends or when it disconnects.
	if _, err := io.WriteString(slow[0], "y"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(slow[0]), nil); err != nil || res.StatusCode != 200 {
		t.Errorf("%v, %v", res, err)
	}
	awaitInFlight(s, limit-1)
	s.arrived()
	s.passes(request(whoami, local))
	for _, conn := range slow[1:] {
		conn.Close()
	}
	awaitInFlight(s, 0)
	s.arrived()
	s.passes(request(whoami, local))
}

// awaitInFlight waits until n requests are in flight.
func awaitInFlight(s *stand, n int) {
	s.t.Helper()
	program.Await(s.t, fmt.Sprintf("%d requests in flight", n), func() bool {
		return s.Metric("mimecast_proxy_requests_in_flight") == float64(n)
	})
}
