// Package peer has clients, servers and corporate proxies for tests that need behavior that
// the standard library does not allow.
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

// Upload sends a request with a body of size bytes. The head is given without its framing
// headers. Like many HTTP clients, Upload sends the whole body before it reads the
// response.
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

// ConnectProxy returns a corporate proxy that opens a tunnel for each CONNECT. It calls
// dial with the requested host and port.
//
// The caller starts the proxy. Close it before the servers behind it, or a connection
// that is being opened finds its server gone.
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
			return // the client disconnected
		}
		go func() { _, _ = io.Copy(up, early); up.Close() }() // the server may have buffered the client's first bytes
		_, _ = io.Copy(down, up)
	}))
}
