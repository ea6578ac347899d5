package intercept

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/secret"
)

func TestNobodyUsesTheProxyWithoutItsPassword(t *testing.T) {
	basic := func(credentials string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials)) + "\r\n"
	}
	for header, ok := range map[string]bool{
		basic("any:" + password): true, basic(":" + password): true, strings.Replace(basic("u:"+password), "Basic", "bAsIc", 1): true,
		"": false, basic("any:"): false, basic("any:" + password + "x"): false, basic(password): false, basic(password + ":"): false,
		"Proxy-Authorization: Bearer " + password + "\r\n": false, "Proxy-Authorization: Basic !\r\n": false,
		"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+password)) + "\r\n": false,
	} {
		for _, request := range []string{"CONNECT " + host + ":443", "CONNECT evil.test:443", "GET http://" + host + "/", "GET /"} {
			f := start(t, Options{Password: secret.New(password), MimecastOnly: true})
			method, _, _ := strings.Cut(request, " ")
			res, _ := send(t, f.dial(t), method, request+" HTTP/1.1\r\nHost: x\r\n"+header+"\r\n")
			if denied := res.StatusCode == http.StatusProxyAuthRequired; denied == ok {
				t.Errorf("%s with %q: %d", request, header, res.StatusCode)
			}
			if ok {
				continue
			}
			if res.Header.Get("Proxy-Authenticate") != `Basic realm="mimecast-proxy"` || code(res) != event.ProxyAuthRequired {
				t.Errorf("%s: %v", request, res.Header)
			}
			if got := f.outcome(t, event.InterceptUnauthorized); got.Host != "" || strings.Contains(fmt.Sprint(got), password) {
				t.Errorf("%+v", got)
			}
		}
	}
}

func TestAuthorizeReplacesThePassword(t *testing.T) {
	f := start(t, Options{Password: secret.New(password), Authorize: func(r *http.Request) bool { return r.Header.Get("X-Key") == "k" }})
	for key, status := range map[string]int{"k": 200, "": 407} {
		res, _ := send(t, f.dial(t), "GET", "GET http://"+host+"/ HTTP/1.1\r\nHost: x\r\nX-Key: "+key+"\r\n\r\n")
		if res.StatusCode != status {
			t.Errorf("%q: %d", key, res.StatusCode)
		}
	}
}

// dialed records the addresses that a proxy dials.
type dialed struct {
	mu        sync.Mutex
	addresses []string
}

func (d *dialed) dial(_ context.Context, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = append(d.addresses, address)
	return nil, &net.DNSError{IsNotFound: true}
}

func TestWhatAConnectMayReach(t *testing.T) {
	for _, c := range []struct {
		target       string
		status       int
		code         event.Code
		dialed       string
		mimecastOnly bool
	}{
		{target: host + ":443", status: 200},
		{target: "EU-API.mimecast.com.:443", status: 200},
		{target: host + ":443", status: 200, mimecastOnly: true},
		{target: host + ":80", status: 403, code: event.TunnelNotAllowed},
		{target: host + ":8443", status: 403, code: event.TunnelNotAllowed},
		{target: strings.ToUpper(host) + ".:22", status: 403, code: event.TunnelNotAllowed},
		{target: host + ".evil.test:443", status: 502, code: event.TunnelFailed, dialed: host + ".evil.test:443"},
		{target: "x" + host + ":443", status: 502, code: event.TunnelFailed, dialed: "x" + host + ":443"},
		{target: "login.mimecast.com:443", status: 502, code: event.TunnelFailed, dialed: "login.mimecast.com:443"},
		{target: "203.0.113.7:443", status: 502, code: event.TunnelFailed, dialed: "203.0.113.7:443"},
		{target: "[2001:db8::7]:443", status: 502, code: event.TunnelFailed, dialed: "[2001:db8::7]:443"},
		{target: host + ".evil.test:443", status: 403, code: event.TunnelNotAllowed, mimecastOnly: true},
		{target: "127.0.0.1:443", status: 403, code: event.TunnelNotAllowed, mimecastOnly: true},
		{target: "169.254.169.254:80", status: 403, code: event.TunnelNotAllowed, mimecastOnly: true},
		{target: host, status: 400},
		{target: "/", status: 400},
		{target: "a:0", status: 400, code: event.BadRequestTarget},
		{target: "u@" + host + ":443", status: 400},
		{target: "127.1:443", status: 400, code: event.BadRequestTarget},
	} {
		var d dialed
		f := start(t, Options{MimecastOnly: c.mimecastOnly, Dial: d.dial})
		_, res := f.connect(t, c.target)
		if res.StatusCode != c.status || c.code != "" && code(res) != c.code || res.Header.Get("X-Token") != "" {
			t.Errorf("%s: %d %v", c.target, res.StatusCode, res.Header)
		}
		if got := strings.Join(d.addresses, " "); got != c.dialed {
			t.Errorf("%s: dialed %q", c.target, got)
		}
	}
}

func TestConnectWithABodyIsRejected(t *testing.T) {
	f := start(t, Options{})
	for _, header := range []string{"Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
		res, _ := send(t, f.dial(t), http.MethodConnect, "CONNECT "+host+":443 HTTP/1.1\r\nHost: x\r\n"+header)
		if res.StatusCode != 400 || code(res) != event.BadRequestTarget {
			t.Errorf("%q: %d", header, res.StatusCode)
		}
	}
}

func TestAbsoluteFormIsForMimecastAlone(t *testing.T) {
	for _, c := range []struct {
		target string
		status int
		want   string
	}{
		{"http://" + host + "/api/x?a=1;b=%2F", 200, "HTTP/1.1 /api/x?a=1;b=%2F host=" + host + " base=http://" + host + " tls=false"},
		{"https://EU-api.mimecast.com.:443/x", 200, "HTTP/1.1 /x host=" + host + " base=https://" + host + " tls=false"},
		{"http://" + host + ":80", 200, "HTTP/1.1 / host=" + host},
		{"http://" + host + "?q", 200, "HTTP/1.1 /?q host=" + host},
		{"http://" + host + "//evil.test/", 200, "HTTP/1.1 //evil.test/ host=" + host},
		{"http://" + host + ":443/", 403, ""},
		{"https://" + host + ":80/", 403, ""},
		{"http://evil.test/", 403, ""},
		{"http://" + host + ".evil.test/", 403, ""},
		{"http://127.0.0.1/", 403, ""},
		{"http://u:p@" + host + "/", 400, ""},
		{"ftp://" + host + "/", 400, ""},
		{"/", 400, ""},
		{"*", 400, ""},
	} {
		f := start(t, Options{})
		res, r := send(t, f.dial(t), "OPTIONS", "OPTIONS "+c.target+" HTTP/1.1\r\nHost: other\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\nConnection: close\r\n\r\n")
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err, r.Buffered())
		}
		if res.StatusCode != c.status || !strings.HasPrefix(string(body), c.want) || c.status == 200 != (code(res) == "") {
			t.Errorf("%s: %d %s", c.target, res.StatusCode, body)
		}
		if c.status == 200 {
			if !strings.HasSuffix(string(body), "auth=[]") {
				t.Errorf("%s: the password is passed on: %s", c.target, body)
			}
		} else {
			f.outcome(t, event.InterceptNotAllowed)
		}
	}
}

func TestErrorResponsesCarryTheID(t *testing.T) {
	f := start(t, Options{NewID: func() string { return "id-1" }})
	_, res := f.connect(t, host+":80")
	if got := f.outcome(t, event.InterceptNotAllowed); got.ID != "id-1" || res.Header.Get("X-Request-Id") != "id-1" || got.Host != host || got.Port != 80 || !got.Intercepted {
		t.Errorf("%+v, %v", got, res.Header)
	}
}

func TestServerNameMustBeThatOfConnect(t *testing.T) {
	for name, ok := range map[string]bool{host: true, "EU-API.mimecast.com": true, "us-api.mimecast.com": false, "evil.test": false, "": true} {
		f := start(t, Options{})
		conn, res := f.connect(t, host+":443")
		if res.StatusCode != 200 {
			t.Fatal(res.StatusCode)
		}
		verify := &tls.Config{ServerName: name, RootCAs: pool(f.o.Authority)}
		if name == "" {
			verify.InsecureSkipVerify = true // Go requires a name for verification
		}
		secure := tls.Client(conn, verify)
		err := secure.HandshakeContext(t.Context())
		if (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil {
			if err := secure.ConnectionState().PeerCertificates[0].VerifyHostname(host); err != nil {
				t.Errorf("%q: %v", name, err)
			}
			secure.Close()
			f.outcome(t, event.InterceptTerminated)
		} else if got := f.outcome(t, event.InterceptHandshakeFailed); got.Err == nil {
			t.Errorf("%q: no cause", name)
		}
	}
}

func TestHostInsideATunnelMustBeItsName(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		f := start(t, Options{})
		c := f.client(t, "")
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		for name, status := range map[string]int{
			host: 200, "EU-API.mimecast.com": 200, host + ":443": 200, host + ".": 200,
			host + ":80": 421, "us-api.mimecast.com": 421, "evil.test": 421, "127.0.0.1": 421, host + ".evil.test": 421,
		} {
			for _, body := range []string{"", "x"} {
				req, err := http.NewRequest("POST", "https://"+host+"/", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Host = name
				res, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != status || status == 421 && (code(res) != event.MisdirectedRequest || res.Header.Get("X-Token") != "") {
					t.Errorf("%s, HTTP/2 %t: %d %v", name, h2, res.StatusCode, res.Header)
				}
			}
		}
	}
}

func TestAbsoluteFormInsideATunnel(t *testing.T) {
	f := start(t, Options{})
	for uri, status := range map[string]int{
		"https://" + host + "/x?y": 200, "https://us-api.mimecast.com/x": 421,
		"https:foo": 400, "https:" + host: 400, "https:/x?y": 400, "https:///x?y": 400, "https:": 400, "https:?y": 400,
	} {
		conn, _ := f.connect(t, host+":443")
		secure := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: pool(f.o.Authority)})
		res, _ := send(t, secure, "GET", "GET "+uri+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		body := make([]byte, res.ContentLength)
		if _, err := io.ReadFull(res.Body, body); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != status || status == 200 && !strings.HasPrefix(string(body), "HTTP/1.1 /x?y host="+host) {
			t.Errorf("%s: %d %s", uri, res.StatusCode, body)
		}
		if status == 400 && code(res) != event.BadRequestTarget {
			t.Errorf("%s: %v", uri, res.Header)
		}
	}
}

func TestWhatIsNoHandshakeEndsTheTunnel(t *testing.T) {
	f := start(t, Options{})
	conn, _ := f.connect(t, host+":443")
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); strings.Contains(string(got), "200") {
		t.Errorf("%q, %v", got, err)
	}
	f.outcome(t, event.InterceptHandshakeFailed)
}

func TestAClientThatDoesNotTrustTheCAIsReported(t *testing.T) {
	f := start(t, Options{})
	conn, _ := f.connect(t, host+":443")
	if err := tls.Client(conn, &tls.Config{ServerName: host}).HandshakeContext(t.Context()); err == nil {
		t.Fatal("it is trusted")
	}
	if got := f.outcome(t, event.InterceptHandshakeFailed); got.Err == nil || !strings.Contains(got.Err.Error(), "certificate") {
		t.Errorf("%+v", got)
	}
}

func TestBytesRightAfterConnectBelongToTheTunnel(t *testing.T) {
	foreign := echo(t)
	f := start(t, Options{})
	conn := f.dial(t)
	_, r := send(t, conn, http.MethodConnect, "CONNECT "+foreign+" HTTP/1.1\r\nHost: x\r\n\r\nearly ")
	if _, err := io.WriteString(conn, "late"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // the server can still respond
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "early late" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := f.outcome(t, event.InterceptTunneled); got.In != 10 || got.Out != 10 || got.Err != nil {
		t.Errorf("%+v", got)
	}
}

// echo starts a server that returns what it received, after the client has closed its sending
// half.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				got, err := io.ReadAll(c)
				if err == nil {
					c.Write(got)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().String()
}

func TestTunnelsToTheProxyItselfAreRejected(t *testing.T) {
	other, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	f := start(t, Options{Own: func() []net.Addr { return []net.Addr{other.Addr()} }})
	second := f.listen(t)
	_, port, _ := net.SplitHostPort(other.Addr().String())
	for _, address := range []string{f.address, second, "127.0.0.1:" + port, "localhost:" + port} {
		if _, res := f.connect(t, address); res.StatusCode != 403 || code(res) != event.TunnelNotAllowed {
			t.Errorf("%s: %d", address, res.StatusCode)
		}
	}
}

func TestACorporateProxyThatIsTheProxyItself(t *testing.T) {
	via := &url.URL{Scheme: "http"}
	f := start(t, Options{Dial: DialThrough(func(*url.URL) (*url.URL, error) { return via, nil }, nil)})
	via.Host = f.address
	if _, res := f.connect(t, "files.example:443"); res.StatusCode != 403 || code(res) != event.TunnelNotAllowed {
		t.Errorf("%d %s", res.StatusCode, code(res))
	}
	f.outcome(t, event.InterceptNotAllowed)
}

func TestCorporateProxy(t *testing.T) {
	foreign := echo(t)
	for _, secure := range []bool{false, true} {
		var mu sync.Mutex
		var asked []string
		corporate := peer.ConnectProxy(t, func(address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, address)
			return net.Dial("tcp", foreign)
		})
		inner := corporate.Config.Handler
		var credentials string
		corporate.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			credentials = r.Header.Get("Proxy-Authorization")
			mu.Unlock()
			inner.ServeHTTP(w, r)
		})
		roots := pool(testAuthority())
		if secure {
			certificate, trusted := peer.Certificate(t)
			corporate.TLS, roots = &tls.Config{Certificates: []tls.Certificate{*certificate}}, trusted
			corporate.StartTLS()
		} else {
			corporate.Start()
		}
		defer corporate.Close()
		settings := httpproxy.Config{HTTPSProxy: strings.Replace(corporate.URL, "://", "://jdoe:p%40ss@", 1), NoProxy: ".invalid"}
		f := start(t, Options{Dial: DialThrough(settings.ProxyFunc(), roots)})
		conn := f.dial(t)
		res, r := send(t, conn, http.MethodConnect, "CONNECT files.example:8443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic eDp5\r\n\r\nhello")
		if res.StatusCode != 200 {
			t.Fatalf("secure %t: %d", secure, res.StatusCode)
		}
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(r) // the test's corporate proxy does not forward a half-close
		if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("jdoe:p@ss")); credentials != want {
			t.Errorf("secure %t: the corporate proxy got %q", secure, credentials)
		}
		f.connect(t, "files.invalid:443")
		if _, res := f.connect(t, foreign); res.StatusCode != 200 { // loopback addresses bypass the corporate proxy
			t.Errorf("secure %t: %d", secure, res.StatusCode)
		}
		mu.Lock()
		if !slices.Equal(asked, []string{"files.example:8443"}) {
			t.Errorf("secure %t: the corporate proxy was asked for %v", secure, asked)
		}
		mu.Unlock()
	}
}

func TestWhatTheCorporateProxyRejects(t *testing.T) {
	status := 0
	corporate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer corporate.Close()
	via, err := url.Parse(corporate.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		scheme string
		want   string
	}{
		{407, "http", "(status 407)"}, {403, "http", "status 403"}, {200, "socks5", "Check HTTPS_PROXY"},
		{200, "ftp", "Check HTTPS_PROXY"}, {200, "https", "Check HTTPS_PROXY"},
	} {
		status, via.Scheme = c.status, c.scheme
		timeout := time.Minute
		if c.scheme == "socks5" { // the HTTP server waits for a request, so the dial must time out
			timeout = 200 * time.Millisecond
		}
		f := start(t, Options{DialTimeout: timeout, Dial: DialThrough(func(*url.URL) (*url.URL, error) { return via, nil }, nil)})
		_, res := f.connect(t, "files.example:443")
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 502 || code(res) != event.TunnelFailed || !strings.Contains(string(body), c.want) {
			t.Errorf("%+v: %d %s", c, res.StatusCode, body)
		}
		f.outcome(t, event.InterceptUnreachable)
	}
}

func TestASilentCorporateProxyEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	via := &url.URL{Scheme: "http", Host: l.Addr().String()}
	f := start(t, Options{DialTimeout: 50 * time.Millisecond, Dial: DialThrough(func(*url.URL) (*url.URL, error) { return via, nil }, nil)})
	if _, res := f.connect(t, "files.example:443"); res.StatusCode != 502 {
		t.Error(res.StatusCode)
	}
}

func TestSOCKSProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan string, 1)
	go func() { // a SOCKS5 server (RFC 1928, RFC 1929) for one client
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		next := func(n int) []byte {
			b := make([]byte, n)
			io.ReadFull(c, b)
			return b
		}
		next(int(next(2)[1]))
		c.Write([]byte{5, 2})
		user := string(next(int(next(2)[1])))
		secret := string(next(int(next(1)[0])))
		c.Write([]byte{1, 0})
		name := string(next(int(next(5)[4])))
		next(2)
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		asked <- user + ":" + secret + "@" + name
		io.Copy(c, c)
	}()
	via := &url.URL{Scheme: "socks5", Host: l.Addr().String(), User: url.UserPassword("jdoe", "p@ss")}
	f := start(t, Options{Dial: DialThrough(func(*url.URL) (*url.URL, error) { return via, nil }, nil)})
	conn := f.dial(t)
	_, r := send(t, conn, http.MethodConnect, "CONNECT files.example:443 HTTP/1.1\r\nHost: x\r\n\r\nhello")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := <-asked; got != "jdoe:p@ss@files.example" {
		t.Error(got)
	}
}

func TestUnmodifiedProgramsUseTheProxyByTheirVariables(t *testing.T) {
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	f := start(t, Options{Password: secret.New(password)})
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, f.o.Authority.Bundle(), 0o600); err != nil {
		t.Fatal(err)
	}
	via := "http://any:" + password + "@" + f.address
	environ := []string{"HTTPS_PROXY=" + via, "https_proxy=" + via, "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE=" + bundle, "CURL_CA_BUNDLE=" + bundle}
	for name, args := range map[string][]string{
		"curl":    {"-sS", "https://" + host + "/x"},
		"python3": {"-c", `import urllib.request; print(urllib.request.urlopen("https://` + host + `/x").read().decode())`},
	} {
		t.Run(name, func(t *testing.T) {
			if said, err := run(t, environ, name, args...); err != nil || !strings.Contains(said, " /x host="+host) {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

func TestARevokedKeyEndsOpenTunnels(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		var revoked atomic.Bool
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+password))
		f := start(t, Options{Authorize: func(r *http.Request) bool {
			return !revoked.Load() && slices.Equal(r.Header["Proxy-Authorization"], []string{want}) && r.Method == http.MethodConnect && r.Host == host+":443"
		}})
		c := f.client(t, password)
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		for _, status := range []int{200, 200, 407} {
			revoked.Store(status == 407)
			req, err := http.NewRequest("POST", "https://"+host+"/", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Proxy-Authorization", "Basic b3RoZXI6b3RoZXI=") // must be ignored in favor of CONNECT's
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			denied := status == 407
			if res.StatusCode != status || denied != (code(res) == event.ProxyAuthRequired) || denied != (res.Header.Get("Proxy-Authenticate") != "") || denied == (res.Header.Get("X-Token") != "") {
				t.Errorf("HTTP/2 %t: %d %v", h2, res.StatusCode, res.Header)
			}
			if !h2 && res.Close != denied {
				t.Errorf("%d: the last response of its connection: %t", status, res.Close)
			}
		}
		f.outcome(t, event.InterceptTerminated)
	}
}

func TestHandlerLearnsTheTunnelsCredentials(t *testing.T) {
	f := start(t, Options{Password: secret.New(password), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values, ok := Authorization(r.Context())
		fmt.Fprintf(w, "%t %q %q", ok, values, r.Header["Proxy-Authorization"])
	})})
	want := fmt.Sprintf(`true ["Basic %s"] []`, base64.StdEncoding.EncodeToString([]byte("any:"+password)))
	for _, scheme := range []string{"http", "https"} {
		for _, h2 := range []bool{false, true} {
			c := f.client(t, password)
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
			req, err := http.NewRequest("GET", scheme+"://"+host+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if scheme == "https" {
				req.Header.Set("Proxy-Authorization", "Basic b3RoZXI6b3RoZXI=") // must be ignored in favor of CONNECT's
			}
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != want {
				t.Errorf("%s, HTTP/2 %t: %s, want %s", scheme, h2, body, want)
			}
		}
	}
	if values, ok := Authorization(t.Context()); ok || values != nil {
		t.Errorf("%q for a request of another way", values)
	}
	f = start(t, Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values, ok := Authorization(r.Context())
		fmt.Fprintf(w, "%t %q", ok, values)
	})})
	if _, body := get(t, f.client(t, ""), "https://"+host+"/"); body != "true []" {
		t.Error(body)
	}
}

func TestOptionsOfTheWholeServerReachTheHandler(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		f := start(t, Options{})
		c := f.client(t, "")
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		res, err := c.Do(&http.Request{Method: http.MethodOptions, URL: &url.URL{Scheme: "https", Host: host, Opaque: "*"}})
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 200 || res.Header.Get("X-Token") == "" || !strings.Contains(string(body), " * host="+host) {
			t.Errorf("HTTP/2 %t: %d %q, %v", h2, res.StatusCode, body, err)
		}
	}
}
