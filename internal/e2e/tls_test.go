//go:build unix

package e2e

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/peer"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// keyPairFiles are the files of a certificate and its key, which are replaced one after the
// other. trust gets every certificate that was ever in them.
type keyPairFiles struct {
	cert, key string
	trust     *x509.CertPool
}

func newKeyPairFiles(t *testing.T) *keyPairFiles {
	t.Helper()
	dir := t.TempDir()
	f := &keyPairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), x509.NewCertPool()}
	f.replace(t)
	return f
}

func (f *keyPairFiles) replace(t *testing.T) {
	t.Helper()
	pair, _ := peer.Certificate(t, "proxy.test")
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	f.trust.AddCert(leaf)
	der, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{f.cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, f.key: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *keyPairFiles) environ(more ...string) []string {
	return append([]string{"PROXY_TLS_LISTEN=127.0.0.1:0", "PROXY_TLS_CERT_FILE=" + f.cert, "PROXY_TLS_KEY_FILE=" + f.key}, more...)
}

var tlsAddress = regexp.MustCompile(`"also_listening":"tls:([^"]+)"|"listen":"tls:([^"]+)"`)

// tlsPort returns the address at which p serves TLS.
func tlsPort(t *testing.T, p *program.Program) string {
	t.Helper()
	found := tlsAddress.FindStringSubmatch(p.Stderr.String())
	if found == nil {
		t.Fatal("there is no TLS port in the log")
	}
	return found[1] + found[2]
}

func tlsClient(f *keyPairFiles, http2 bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.trust.Clone()}, ForceAttemptHTTP2: http2}
	if !http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
	}
	return &http.Client{Transport: transport}
}

func TestTLSPortServesHTTP1AndHTTP2AsThePlainOneDoes(t *testing.T) {
	t.Parallel()
	f := newKeyPairFiles(t)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), f.environ("PROXY_ALLOW=GET /identity/")...)
	base := "https://" + tlsPort(t, p)
	for _, http2 := range []bool{false, true} {
		client := tlsClient(f, http2)
		for _, c := range []struct {
			path, host, origin string
			status             int
		}{
			{"/identity/whoami", "", "", 200}, {"/identity/whoami", "evil.example", "", 403}, {"/api/x", "", "", 403},
			{"/identity/whoami", "", base, 200}, {"/identity/whoami", "", "https://evil.example", 403},
		} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", base+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.origin != "" {
				req.Header.Set("Origin", c.origin)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatalf("%+v, HTTP/2 %v: %v", c, http2, err)
			}
			res.Body.Close()
			if res.StatusCode != c.status || (res.ProtoMajor == 2) != http2 {
				t.Errorf("%+v, HTTP/2 %v: %s %s", c, http2, res.Proto, res.Status)
			}
		}
		client.CloseIdleConnections()
	}
	old, err := tls.Dial("tcp", tlsPort(t, p), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}) //nolint:gosec // must fail
	if err == nil {
		old.Close()
		t.Error("TLS 1.1 is accepted")
	}
}

func TestProxyThatListensWithTLSAloneHasNoPlainPort(t *testing.T) {
	t.Parallel()
	f := newKeyPairFiles(t)
	p := program.Start(t, program.Environ(t, program.Simulate(t, simulator.Options{}), f.environ("PROXY_LISTEN=off")...)).AwaitServing().AwaitReady()
	res, err := tlsClient(f, false).Get("https://" + tlsPort(t, p) + "/identity/whoami")
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
}

func TestWrongProtocolIsNamedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	f := newKeyPairFiles(t)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), f.environ()...)
	secure := tlsPort(t, p)
	for range 3 {
		if conn, err := tls.Dial("tcp", p.Listen, &tls.Config{InsecureSkipVerify: true}); err == nil { //nolint:gosec // must fail
			conn.Close()
			t.Error("the plain port speaks TLS")
		}
		conn := program.Dial(t, secure)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400 ") || !strings.Contains(string(text), "X-Mimecast-Proxy-Error: bad_request") || !strings.Contains(string(text), "This port speaks TLS") {
			t.Errorf("%q, %v", text, err)
		}
	}
	const hint = `"msg":"protocol mismatch"`
	p.Stderr.Await(t, "the hint", func(text string) bool { return strings.Contains(text, hint) })
	if n := strings.Count(p.Stderr.String(), hint); n != 1 {
		t.Errorf("%d hints", n)
	}
}

var certificateChanges = flag.Int("certificate-changes", 20, "how many certificates TestCertificatesRotateWithoutAFailedHandshake goes through")

// The certificate changes many times while clients use both new and kept connections.
func TestCertificatesRotateWithoutAFailedHandshake(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	f := newKeyPairFiles(t)
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), f.environ()...)
	secure := tlsPort(t, p)
	var mu sync.Mutex // guards f.trust
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.trust.Clone()}, ForceAttemptHTTP2: true}}
	t.Cleanup(kept.CloseIdleConnections)
	asked := 0
	var different atomic.Int64
	var certificates sync.Map
	host, _, _ := net.SplitHostPort(secure)
	// Its trust is that of the handshake's moment, since a client may be slow to connect.
	verify := func(s tls.ConnectionState) error {
		mu.Lock()
		roots := f.trust.Clone()
		mu.Unlock()
		if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			return err
		}
		if _, seen := certificates.LoadOrStore(string(s.PeerCertificates[0].Raw), true); !seen {
			different.Add(1)
		}
		return nil
	}
	fresh := func() *http.Client {
		config := &tls.Config{InsecureSkipVerify: true, VerifyConnection: verify} //nolint:gosec // verify does
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	}
	ask := func(client *http.Client) {
		res, err := client.Get("https://" + secure + "/identity/whoami")
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			t.Error(res.Status, err)
		}
	}
	done := make(chan struct{})
	began := time.Now()
	var asking sync.WaitGroup
	asking.Go(func() {
		const rate = 100 // requests a second, half of them on new connections
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C: // drops ticks on a busy machine, so compute from the clock how many requests are due
			}
			for due := int(time.Since(began).Seconds() * rate); asked < due; asked++ {
				client := kept
				if asked%2 == 0 {
					client = fresh()
				}
				asking.Go(func() { ask(client) })
			}
		}
	})
	reread := func() {
		seen := different.Load()
		mu.Lock()
		f.replace(t)
		mu.Unlock()
		if err := p.Cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		program.Await(t, "the new certificate", func() bool { return different.Load() > seen })
	}
	for range *certificateChanges {
		reread()
	}
	close(done)
	asking.Wait()
	t.Logf("%d requests, %.0f a second, %d certificates seen", asked, float64(asked)/time.Since(began).Seconds(), different.Load())
	if strings.Contains(p.Stderr.String(), "TLS handshake error") {
		t.Error("a handshake failed")
	}
}

// Without a configured certificate, the TLS port uses one from the interception CA.
func TestTLSPortWithoutACertificateUsesTheCA(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	for _, more := range [][]string{nil, {"PROXY_INTERCEPT_CA_DIR=" + dir}} {
		p := program.Serve(t, program.Simulate(t, simulator.Options{}), append(more, "PROXY_TLS_LISTEN=127.0.0.1:0", "PROXY_ALLOWED_HOSTS=proxy.test")...)
		res, text := p.AdminGet("/ca.pem")
		roots := x509.NewCertPool()
		if res.StatusCode != http.StatusOK || !roots.AppendCertsFromPEM([]byte(text)) {
			t.Fatalf("/ca.pem: %s %q", res.Status, text)
		}
		for name, fits := range map[string]bool{"proxy.test": true, "localhost": true, "other.test": false} {
			conn, err := tls.Dial("tcp", tlsPort(t, p), &tls.Config{RootCAs: roots, ServerName: name})
			if (err == nil) != fits {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil {
				conn.Close()
			}
		}
		if more == nil {
			continue
		}
		kept, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil || string(kept) != text {
			t.Errorf("ca.pem is not what the admin listener has: %v", err)
		}
		if info, err := os.Stat(filepath.Join(dir, "ca-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info, err)
		}
	}
}

// A drain closes tunnels; idle ones at once.
func TestDrainEndsTunnels(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_INTERCEPT_LISTEN=127.0.0.1:0")
	found := regexp.MustCompile(`"intercepting":"([^"]+)"`).FindStringSubmatch(p.Stderr.String())
	if found == nil {
		t.Fatal("the log does not say where the forward proxy is")
	}
	conn := program.Dial(t, found[1])
	if _, err := io.WriteString(conn, "CONNECT "+other.Addr().String()+" HTTP/1.1\r\nHost: "+other.Addr().String()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	began := time.Now()
	p.Signal(os.Interrupt)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(began); took > 20*time.Second { // PROXY_SHUTDOWN_TIMEOUT is 25 s
		t.Errorf("it took %v", took)
	}
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	if text := p.Stderr.String(); !strings.Contains(text, `"msg":"tunnel"`) {
		t.Error("the tunnel has no line in the log")
	}
}
