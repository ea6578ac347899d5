//go:build unix

package attack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/app"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/simulator"
)

// inProcess serves the program's handlers on a real listener in this process, so that the
// fuzzer sees their code coverage. It returns the address.
func inProcess(t testing.TB, environ []string) string {
	t.Helper()
	opened := make(chan net.Listener, 1)
	p := app.Env{Environ: environ, Stdout: io.Discard, Stderr: io.Discard, Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, address)
		if err == nil {
			opened <- l
		}
		return l, err
	}}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	select {
	case l := <-opened:
		return l.Addr().String()
	case err := <-served:
		t.Fatal(errors.Join(errors.New("it does not serve"), err))
		return ""
	}
}

// FuzzWhatMimecastReceives sends raw bytes. Each request that Mimecast receives must have
// exactly one Authorization header, the proxy's, and none of the client's credentials.
// Upstream is HTTP/1.1, where request smuggling is possible.
func FuzzWhatMimecastReceives(f *testing.F) {
	for _, seed := range []string{
		"", "Authorization: Bearer evil\r\n", "Authorization: Bearer evil\r\nauthorization: Basic evil\r\n", "Connection: Authorization\r\n", "Connection: close, AUTHORIZATION\r\nAuthorization: evil\r\n",
		"Authorization:\r\n evil\r\n", "X: y\r\n\tAuthorization: evil\r\n", "Cookie: evil\r\nForwarded: evil\r\nX-Forwarded-For: evil\r\n", "x-mc-date: evil\r\nX-MC-App-Id: evil\r\nx-mc-req-id: evil\r\n",
		"Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nAuthorization: evil\r\n", "TE: trailers\r\nProxy-Authorization: evil\r\nX-Proxy-Key: evil\r\n",
		"Content-Length: 3\r\n\r\nabcGET /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: evil\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: localhost\r\n",
		"Upgrade: h2c\r\nConnection: Upgrade\r\n", "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx", "\nAuthorization: evil\n", "Host: localhost\r\n",
	} {
		f.Add("GET /identity/whoami", []byte(seed))
		f.Add("POST http://localhost/_simulator/echo?Authorization=evil", []byte(seed))
	}
	sim := program.Simulate(f, simulator.Options{HTTP1Only: true})
	address := inProcess(f, program.Environ(f, sim, "PROXY_ADMIN_LISTEN=off"))
	f.Fuzz(func(t *testing.T, line string, header []byte) {
		sim.Reset()
		conn := program.Dial(t, address)
		defer conn.Close()
		raw := line + " HTTP/1.1\r\nHost: localhost\r\n" + string(header) + "\r\n\r\n"
		// The second request closes the connection, whatever the first one left open.
		if _, err := io.WriteString(conn, raw+"GET /end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			return // the connection was closed early
		}
		// If the bytes announce a body that is missing, the proxy waits for it.
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, conn)
		for _, r := range sim.Requests() {
			if r.Target == "/oauth/token" { // from the proxy; the token stub answers a client's
				if r.Header["Authorization"] != nil {
					t.Errorf("%q: a token request arrived: %+v", raw, r)
				}
				continue
			}
			judgeArrived(t, raw, r)
		}
	})
}

// theClients are the client's headers, which must not reach Mimecast.
var theClients = []string{"Cookie", "Forwarded", "X-Proxy-Key", "Proxy-Authorization", "X-Mc-App-Id", "X-Mc-Date", "X-Mc-Req-Id", "Upgrade", "Trailer", "Keep-Alive", "Proxy-Connection"}

func judgeArrived(t *testing.T, raw string, r simulator.Request) {
	t.Helper()
	// Mimecast responds with 401 to a token that it did not issue.
	if a := r.Header["Authorization"]; len(a) != 1 || !strings.HasPrefix(a[0], "Bearer ") || strings.Contains(a[0], "evil") || r.Status == http.StatusUnauthorized {
		t.Errorf("%q: %s arrived with Authorization %q and got %d", raw, r.Target, a, r.Status)
	}
	if len(r.Trailer) > 0 {
		t.Errorf("%q: %s arrived with trailers %v", raw, r.Target, r.Trailer)
	}
	for name := range r.Header {
		if slices.Contains(theClients, name) || strings.HasPrefix(name, "X-Forwarded-") {
			t.Errorf("%q: %s arrived with %s", raw, r.Target, name)
		}
	}
}
