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

	"mimecast-proxy/internal/program"
	"mimecast-proxy/problem"
)

// flood is how many connections a hostile client opens.
const flood = 10_000

// affordable returns how many of n connections this process and the program may
// hold, each by its own limit.
func affordable(t *testing.T, n int) int {
	t.Helper()
	const others = 500
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(min(limit.Max, 1<<20)) - others; most < n { // Go raises the soft limit itself
		t.Logf("only %d of %d connections: this machine allows %d open files; raise ulimit -Hn", most, n, limit.Max)
		return most
	}
	return n
}

// open opens n connections, and sends on each what say returns.
func (s *stand) open(n int, say func(i int) string) (conns []net.Conn) {
	s.t.Helper()
	for i := range n {
		conn := dial(s.t, s.Listen)
		if _, err := io.WriteString(conn, say(i)); err != nil {
			s.t.Fatalf("connection %d: %v", i, err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func TestTenThousandIdleAndSlowConnectionsLeaveItServing(t *testing.T) {
	// What a burst does to the places for requests is the next test's matter.
	s := newStand(t, "PROXY_API_KEY=key", "PROXY_MAX_REQUESTS=20000")
	n := affordable(t, flood)
	slow := []string{
		"", // nothing
		"GET /identity/whoami HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",      // a header that does not end
		"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx", // a body that does not end
		"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
	}
	// These are closed after 10 s. Connections that had an answer may be idle for
	// longer than any of this takes.
	kinds := n / 20
	s.open(n-len(slow)*kinds, func(int) string { return request(whoami, local) })
	s.open(len(slow)*kinds, func(i int) string { return slow[i%len(slow)] })
	idle, held := n-len(slow)*kinds, 0
	await(t, "idle connections enough", func() bool {
		held = int(s.Metric(t, "process_open_fds"))
		return held >= idle
	})
	for range 100 {
		s.passes(request(whoami, local, "X-Proxy-Key: key"))
	}
	t.Logf("%d connections were opened, the program held %d files open and served", n, held)
	refused := float64(n - (len(slow)-1)*kinds) // those, and the third kind
	await(t, "word of every refusal", func() bool {
		return s.Metric(t, `mimecast_proxy_requests_denied_total{reason="api_key_required"}`) == refused
	})
	s.denied[string(problem.APIKeyRequired)] = refused
}

func TestPastTheLimitOfRequestsItIsBusyAndRecovers(t *testing.T) {
	const limit = 8
	s := newStand(t, "PROXY_MAX_REQUESTS="+strconv.Itoa(limit))
	slow := s.open(limit, func(int) string {
		return "POST /_simulator/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nx"
	})
	awaitInFlight(s, limit)
	for range 3 {
		s.refuses(503, problem.TooBusy, request(whoami, local))
	}
	if got := send(t, s.Listen, request(whoami, local), 1); len(got) != 1 || got[0].header.Get("Retry-After") != "1" {
		t.Errorf("%+v", got)
	}
	s.denied[string(problem.TooBusy)]++
	// A client that ends its request frees its place, and so does one that leaves.
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

// awaitInFlight waits until so many requests are in flight.
func awaitInFlight(s *stand, n int) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d requests in flight", n), func() bool {
		return s.Metric(s.t, "mimecast_proxy_requests_in_flight") == float64(n)
	})
}

// await asks until it is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(program.Patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}
