package intercept

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log"

	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

func TestMain(m *testing.M) {
	suite.Parallel(8)
	goleak.VerifyTestMain(m)
}

const (
	host     = "eu-api.mimecast.com"
	password = "p4ss-marked"
	token    = "t0ken-marked"
)

// fixture is a listening proxy with the tunnels that it reported.
type fixture struct {
	*Proxy
	address string
	mu      sync.Mutex
	tunnels []Tunnel
}

// start starts a proxy for Mimecast's hosts. Unless o has a handler, the handler responds with a
// description of the request.
func start(t *testing.T, o Options) *fixture {
	t.Helper()
	f := &fixture{}
	if o.Authority == nil {
		o.Authority = testAuthority()
	}
	if o.Handler == nil {
		o.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Token", token)
			fmt.Fprintf(w, "%s %s host=%s base=%s tls=%t peer=%s auth=%q", r.Proto, r.RequestURI, r.Host, BaseURL(r.Context()), r.TLS != nil, r.RemoteAddr, r.Header["Proxy-Authorization"])
		})
	}
	o.Trace.TunnelDone = func(done Tunnel) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.tunnels = append(f.tunnels, done)
	}
	f.Proxy = New(o)
	f.address = f.listen(t)
	return f
}

// listen makes the proxy serve one more listener until the test ends. It returns the address.
func (f *fixture) listen(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	t.Cleanup(func() {
		_ = f.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		eventually(t, "the end of every tunnel", func() bool { return len(f.open()) == 0 })
	})
	return l.Addr().String()
}

// reported waits for n reported tunnels and returns them. More than n fail the test.
func (f *fixture) reported(t *testing.T, n int) []Tunnel {
	t.Helper()
	var got []Tunnel
	eventually(t, fmt.Sprintf("%d reports", n), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		got = slices.Clone(f.tunnels)
		return len(got) >= n
	})
	if len(got) != n {
		t.Fatalf("%d reports: %+v", len(got), got)
	}
	return got
}

// outcome waits for a single reported tunnel and checks its outcome.
func (f *fixture) outcome(t *testing.T, want event.InterceptOutcome) Tunnel {
	t.Helper()
	got := f.reported(t, 1)[0]
	if got.Outcome != want {
		t.Errorf("outcome %s, want %s: %+v", got.Outcome, want, got)
	}
	return got
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// testAuthority is shared by all tests that do not test the authority.
var testAuthority = sync.OnceValue(func() *Authority {
	a, err := NewAuthority(mimecast.APIHosts())
	if err != nil {
		panic(err)
	}
	return a
})

func pool(a *Authority, more ...*x509.Certificate) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	for _, c := range more {
		roots.AddCert(c)
	}
	return roots
}

// verify verifies a certificate like a client that trusts the authority.
func verify(a *Authority, certificate *tls.Certificate, name string) error {
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	between.AddCert(a.issuer)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool(a), Intermediates: between, DNSName: name})
	return err
}

// client returns a client that uses the proxy with a password, as with HTTPS_PROXY. more are
// additional trusted roots.
func (f *fixture) client(t *testing.T, password string, more ...*x509.Certificate) *http.Client {
	via := &url.URL{Scheme: "http", Host: f.address}
	if password != "" {
		via.User = url.UserPassword("any", password)
	}
	transport := &http.Transport{
		Proxy: http.ProxyURL(via), ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: pool(f.o.Authority, more...)},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// dial opens a connection to the proxy, with a deadline so that a test cannot hang.
func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// send writes a raw request to a connection. It returns the response, and a reader for the bytes
// that follow it.
func send(t *testing.T, conn net.Conn, method, request string) (*http.Response, *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res, r
}

// connect sends a CONNECT request, and returns the connection and the response.
func (f *fixture) connect(t *testing.T, target string) (net.Conn, *http.Response) {
	t.Helper()
	conn := f.dial(t)
	res, _ := send(t, conn, http.MethodConnect, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	return conn, res
}

func code(res *http.Response) event.Code { return event.Code(res.Header.Get(problem.Header)) }

func TestRequestsInATerminatedTunnelReachTheHandler(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		f := start(t, Options{Password: secret.New(password)})
		c := f.client(t, password)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		for range 3 {
			res, body := get(t, c, "https://EU-API.mimecast.com/api/x?a=1;b=2")
			if want := proto + " /api/x?a=1;b=2 host=" + host + " base=https://" + host + " tls=true peer=127.0.0.1:"; !strings.HasPrefix(body, want) || !strings.HasSuffix(body, "auth=[]") || res.Proto != proto {
				t.Errorf("%s, want %s", body, want)
			}
		}
		c.CloseIdleConnections()
		if got := f.outcome(t, event.InterceptTerminated); got.Host != host || got.Port != 443 || !got.Intercepted || got.In == 0 || got.Out == 0 || got.Err != nil {
			t.Errorf("one tunnel for three requests: %+v", got)
		}
	}
}

func TestTunnelToAnotherHostIsUntouched(t *testing.T) {
	suite.Slow(t)
	certificate, _ := peer.Certificate(t, "files.example")
	var seen http.Header
	foreign := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		io.Copy(w, r.Body)
	}))
	foreign.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	foreign.StartTLS()
	defer foreign.Close()
	f := start(t, Options{Password: secret.New(password), Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", foreign.Listener.Addr().String())
	}})
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	c := f.client(t, password, leaf)
	res, err := c.Post("https://files.example:8443/x", "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || len(body) != 1<<20 || !res.TLS.PeerCertificates[0].Equal(leaf) {
		t.Errorf("%d bytes, %v, certificate of %s", len(body), err, res.TLS.PeerCertificates[0].Subject)
	}
	for name, values := range seen {
		if !slices.Contains([]string{"Content-Length", "Content-Type", "User-Agent", "Accept-Encoding"}, name) {
			t.Errorf("the host got %s: %v", name, values)
		}
	}
	c.CloseIdleConnections()
	if got := f.outcome(t, event.InterceptTunneled); got.Host != "files.example" || got.Port != 8443 || got.Intercepted || got.In < 1<<20 || got.Out < 1<<20 {
		t.Errorf("%+v", got)
	}
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
