package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// A client that closes its half of the connection within its body waits for the
// response, and gets one.
func TestABodyThatEndsEarlyIsABadRequest(t *testing.T) {
	for framing, begun := range map[string]string{
		"Content-Length: 10\r\n":         "5byte",
		"Content-Length: 1000000\r\n":    strings.Repeat("x", 5000),
		"Transfer-Encoding: chunked\r\n": "5\r\n5by",
	} {
		for _, limit := range []int64{1 << 20, 4} { // kept, and streamed
			for _, http1 := range []bool{true, false} {
				t.Run(fmt.Sprintf("%q, limit %d, HTTP/1 %v", framing, limit, http1), func(t *testing.T) {
					r := newRig(t, setup{http1: http1, limit: limit}, func(_ http.ResponseWriter, req *http.Request) {
						if _, err := io.Copy(io.Discard, req.Body); err == nil {
							t.Error("Mimecast took the body for whole")
						}
					})
					conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
					fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n%s", framing, begun)
					if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
						t.Fatal(err)
					}
					res, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					if got := res.Header.Get(problem.Header); res.StatusCode != http.StatusBadRequest || got != string(event.BadRequestBody) {
						t.Errorf("%d %s", res.StatusCode, got)
					}
				})
			}
		}
	}
}
