// Package peer has the clients, servers and corporate proxies that tests talk to if
// those of the standard library behave too well.
package peer

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Upload sends a request whose head is given, without its framing, and a body of size
// bytes. It sends the whole body before it reads, as many HTTP clients do.
func Upload(address, head string, chunked bool, size int) (*http.Response, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	if chunked {
		head += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)
	} else {
		head += fmt.Sprintf("Content-Length: %d\r\n\r\n", size)
	}
	if _, err := io.WriteString(conn, head); err != nil {
		return nil, err
	}
	piece := make([]byte, 64<<10)
	for left := size; left > 0; {
		n, err := conn.Write(piece[:min(left, len(piece))])
		if err != nil {
			return nil, fmt.Errorf("with %d bytes left: %w", left, err)
		}
		left -= n
	}
	if chunked {
		if _, err := io.WriteString(conn, "\r\n0\r\n\r\n"); err != nil {
			return nil, err
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res, err
}

// ConnectProxy returns a corporate proxy that opens a tunnel for each CONNECT, by
// dial, which gets the host and port that was asked for. The caller starts it, and
// closes it before the servers behind it: else a connection that is still being
// opened finds nobody.
func ConnectProxy(t *testing.T, dial func(address string) (net.Conn, error)) *httptest.Server {
	return httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up, err := dial(r.Host)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		down, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		if _, err := io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return // the client has left
		}
		go func() { _, _ = io.Copy(up, early); up.Close() }() // the server may have read the client's first bytes
		_, _ = io.Copy(down, up)
	}))
}
