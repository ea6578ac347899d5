package batch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"mimecast-proxy/account"
	"mimecast-proxy/batch"
	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/problem"
	"mimecast-proxy/simulator"
)

// names is a DNS server and its resolver.
type names struct {
	*net.Resolver
	mu        sync.Mutex
	addresses map[string][]netip.Addr // guarded by mu
	asked     int                     // guarded by mu
}

func serveNames(t *testing.T) *names {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{addresses: map[string][]netip.Addr{}}
	n.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
	var running sync.WaitGroup
	running.Go(func() {
		b := make([]byte, 4096)
		for {
			size, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:size]) != nil || len(m.Questions) != 1 {
				continue
			}
			n.answer(&m)
			if text, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(text, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		running.Wait()
	})
	return n
}

func (n *names) answer(m *dnsmessage.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	for _, ip := range n.addresses[strings.TrimSuffix(q.Name.String(), ".")] {
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		switch {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: ip.As4()}})
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
		}
	}
}

// set makes a name resolve to addresses.
func (n *names) set(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses[name] = nil
	for _, text := range addresses {
		n.addresses[name] = append(n.addresses[name], netip.MustParseAddr(text))
	}
}

// trap is a private network's server on every loopback address. No request may reach it.
type trap struct {
	port    uint16
	visited atomic.Int64
}

func setTrap(t *testing.T) *trap {
	t.Helper()
	x := &trap{}
	four, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(four.Addr().String())
	x.port = at.Port()
	listeners := []net.Listener{four}
	if six, err := net.Listen("tcp6", netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()).String()); err == nil {
		listeners = append(listeners, six)
	}
	var running sync.WaitGroup
	for _, l := range listeners {
		running.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				x.visited.Add(1)
				_ = c.Close()
			}
		})
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			_ = l.Close()
		}
		running.Wait()
	})
	return x
}

// Even if Mimecast returned such URLs, they would lead nowhere.
func TestNoURLLeadsIntoAPrivateNetwork(t *testing.T) {
	dns, inside := serveNames(t), setTrap(t)
	r := newRig(t, simulator.Options{})
	transport := r.transport(batch.TransportOptions{Resolver: dns.Resolver, DialTimeout: 10 * time.Second})
	transport.ConnectTo(inside.port)
	r.options.Download = transport
	r.serve()
	evil := []string{
		"https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.0.0.1./",
		"https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[0:0:0:0:0:ffff:7f00:1]/", "https://[::]/", "https://0.0.0.0/", "https://0/", "https://127.0.0.1%2f.example/",
		"https://8.8.8.8/", "https://１２７.0.0.1/", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://metadata.google.internal/",
		"https://files.example@127.0.0.1/", "https://files.example:443@127.0.0.1/", "https://127.0.0.1@files.example/", `https://files.example\@127.0.0.1/`,
		"https://files.example#@127.0.0.1/", "https://127.0.0.1#.example/", "https://[::1%25lo]/",
		"http://files.example/", "https://files.example:8443/", "file:///etc/passwd", "gopher://127.0.0.1:70/_x", "//127.0.0.1/", "https:127.0.0.1", "javascript:1", "data:,x",
	}
	good := len(evil) // these URLs are valid; their addresses are not
	for name, addresses := range map[string][]string{
		"a.example": {"127.0.0.1"}, "b.example": {"10.0.0.1"}, "c.example": {"169.254.169.254"}, "d.example": {"::1"}, "e.example": {"fd00:ec2::254"},
		"f.example": {"::ffff:127.0.0.1"}, "g.example": {"64:ff9b::7f00:1"}, "h.example": {"127.0.0.1", "::1", "192.168.0.1", "0.0.0.0", "::"}, "i.example": {"100.100.100.200"},
		"j.example": {"fe80::1"}, "files.example": {"127.0.0.1", "::1"},
	} {
		dns.set(name, addresses...)
		evil = append(evil, "https://"+name+"/")
	}
	for i, address := range r.list(evil...) {
		r.reported()
		res, body := r.get(address)
		if res.StatusCode != http.StatusBadGateway || res.Header.Get(problem.Header) != string(event.UpstreamUnreachable) || inside.visited.Load() != 0 {
			t.Errorf("%s: %d %s", evil[i], res.StatusCode, body)
		}
		if got := r.reported(); got != "[] [] [upstream_unreachable]" {
			t.Errorf("%s: reported was %s", evil[i], got)
		}
		if i >= good && !strings.Contains(body, "no public address") {
			t.Errorf("%s: %s", evil[i], body)
		}
		for _, secretive := range []string{"127.0.0.1", "10.0.0.1", "169.254", "fd00"} {
			if strings.Contains(body, secretive) {
				t.Errorf("%s: the client learns an address: %s", evil[i], body)
			}
		}
	}
	if inside.visited.Load() != 0 {
		t.Error("the private server was reached")
	}
}

// A name cannot move from an acceptable host to another one, because the check applies to
// the address of the connection.
func TestNameThatMovesIntoAPrivateNetworkLeadsNowhere(t *testing.T) {
	dns := serveNames(t)
	certificate, roots := peer.Certificate(t, "moving.example")
	files := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "file")
	}))
	files.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	files.StartTLS()
	t.Cleanup(files.Close)
	at := netip.MustParseAddrPort(files.Listener.Addr().String())
	r := newRig(t, simulator.Options{})
	// Loopback stands in for the public host, because tests have no other address to serve
	// on.
	transport := r.transport(batch.TransportOptions{Resolver: dns.Resolver, Roots: roots, AllowLoopback: always})
	transport.ConnectTo(at.Port())
	r.options.Download = transport
	r.serve()
	address := r.list("https://moving.example/")[0]
	dns.set("moving.example", "127.0.0.1")
	if res, body := r.get(address); res.StatusCode != 200 || body != "file" {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	for _, moved := range []string{"10.0.0.1", "169.254.169.254", "fd00::1", "64:ff9b::a00:1"} {
		dns.set("moving.example", moved)
		if res, body := r.get(address); res.Header.Get(problem.Header) != string(event.UpstreamUnreachable) || !strings.Contains(body, "no public address") {
			t.Errorf("%s: %d %s", moved, res.StatusCode, body)
		}
	}
}

// corporateProxy tunnels every CONNECT to one host, and records the requested targets.
type corporateProxy struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // guarded by mu
}

func serveCorporateProxy(t *testing.T, to string) *corporateProxy {
	t.Helper()
	p := &corporateProxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.RequestURI)
		p.mu.Unlock()
		there, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, sent, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		go func() {
			_, _ = io.Copy(there, sent) // what the client sent at once is buffered
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(p.Close)
	return p
}

// A corporate proxy resolves names itself, so only public names may reach it.
func TestCorporateProxyGetsPublicNamesAlone(t *testing.T) {
	certificate, roots := peer.Certificate(t, "files.example")
	files := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "file "+r.Host)
	}))
	files.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	files.StartTLS()
	t.Cleanup(files.Close)
	corporate := serveCorporateProxy(t, files.Listener.Addr().String())
	forward, err := url.Parse(corporate.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, simulator.Options{})
	r.options.Download = r.transport(batch.TransportOptions{Roots: roots, Proxy: func(*url.URL) (*url.URL, error) { return forward, nil }})
	r.serve()
	for _, evil := range []string{"https://127.0.0.1/", "https://10.0.0.1/", "https://localhost/", "https://intranet/", "https://wiki.corp/", "https://metadata.google.internal/", "http://files.example/", "https://files.example:22/"} {
		if res, body := r.get(r.list(evil)[0]); res.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: %d %s", evil, res.StatusCode, body)
		}
	}
	if res, body := r.get(r.list("https://files.example/x" + signed)[0]); res.StatusCode != 200 || body != "file files.example" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	corporate.mu.Lock()
	defer corporate.mu.Unlock()
	if len(corporate.asked) != 1 || corporate.asked[0] != "CONNECT files.example:443" {
		t.Errorf("the corporate proxy got %q", corporate.asked)
	}
}

// An invalid corporate proxy URL must not cause a direct connection.
func TestNothingGoesPastACorporateProxy(t *testing.T) {
	r := newRig(t, simulator.Options{})
	r.options.Download = r.transport(batch.TransportOptions{Proxy: func(*url.URL) (*url.URL, error) { return nil, url.InvalidHostError("pass:word") }})
	r.serve()
	res, body := r.get(r.list("https://files.example/")[0])
	if res.StatusCode != http.StatusBadGateway || strings.Contains(body+r.errors.String(), "word") {
		t.Errorf("%d %s %s", res.StatusCode, body, r.errors.String())
	}
}

func TestNewRootsAreTrustedAtOnce(t *testing.T) {
	files := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "file") }))
	t.Cleanup(files.Close)
	files.Config.ErrorLog = nil
	trusted := x509.NewCertPool()
	trusted.AddCert(files.Certificate())
	r := newRig(t, simulator.Options{})
	transport := r.transport(batch.TransportOptions{AllowLoopback: always, Roots: x509.NewCertPool()})
	r.options.Download = transport
	r.serve()
	address := r.list(files.URL)[0]
	if res, _ := r.get(address); res.Header.Get(problem.Header) != string(event.UpstreamTLS) {
		t.Errorf("%v", res.Header)
	}
	transport.Trust(trusted)
	if res, body := r.get(address); res.StatusCode != 200 || body != "file" {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	transport.Trust(x509.NewCertPool())
	if res, _ := r.get(address); res.Header.Get(problem.Header) != string(event.UpstreamTLS) {
		t.Errorf("%v", res.Header)
	}
}

// Other accounts cannot reuse a connection to this machine that a simulator's account
// opened.
func TestFilesOnThisMachineAreASimulatorsAlone(t *testing.T) {
	dns := serveNames(t)
	dns.set("files.example", "127.0.0.1")
	certificate, roots := peer.Certificate(t, "files.example")
	files := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "file") }))
	files.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
	files.StartTLS()
	t.Cleanup(files.Close)
	simulated, another := new(account.Account), new(account.Account)
	transport := batch.NewTransport(batch.TransportOptions{
		Resolver: dns.Resolver, Roots: roots,
		AllowLoopback: func(ctx context.Context) bool { return account.Of(ctx) == simulated },
	})
	t.Cleanup(transport.CloseIdleConnections)
	transport.ConnectTo(netip.MustParseAddrPort(files.Listener.Addr().String()).Port())
	for range 2 {
		if _, err := download(t, transport, simulated, "https://files.example/"); err != nil {
			t.Error(err)
		}
		for _, address := range []string{"https://files.example/", files.URL} {
			if _, err := download(t, transport, another, address); err == nil {
				t.Errorf("%s was downloaded for another account", address)
			}
		}
	}
}

// download downloads a file for an account.
func download(t *testing.T, transport http.RoundTripper, a *account.Account, address string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(account.NewContext(t.Context(), a, ""), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

// Downloads that hang or are read slowly leave other accounts their share.
func TestNoAccountTakesAllDownloadsFromAHost(t *testing.T) {
	hang := make(chan struct{})
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "file")
	}))
	t.Cleanup(files.Close)
	a, b := new(account.Account), new(account.Account)
	a.SetShare(100, 0)
	b.SetShare(100, 0)
	transport := batch.NewTransport(batch.TransportOptions{AllowLoopback: always, MaxConnections: 4, DialTimeout: 200 * time.Millisecond})
	t.Cleanup(transport.CloseIdleConnections)
	begin := func(of *account.Account) (*http.Response, error) {
		r, err := http.NewRequestWithContext(account.NewContext(t.Context(), of, ""), http.MethodGet, files.URL+"/slow", nil)
		if err != nil {
			t.Fatal(err)
		}
		return transport.RoundTrip(r)
	}
	var slow []*http.Response
	for range 2 {
		res, err := begin(a)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		slow = append(slow, res)
	}
	_, err := begin(a)
	if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != event.TooBusy || p.RetryAfter != time.Second {
		t.Errorf("a third one got %v", err)
	}
	for range 3 {
		if body, err := download(t, transport, b, files.URL); body != "file" {
			t.Errorf("another account got %q, %v", body, err)
		}
	}
	ctx, cancel := context.WithCancelCause(account.NewContext(t.Context(), a, ""))
	cancel(nil)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, files.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Errorf("whose client has gone: %v", err)
	}
	close(hang)
	for _, res := range slow {
		_ = res.Body.Close()
		_ = res.Body.Close() // releases no other download's place
	}
	if body, err := download(t, transport, a, files.URL); body != "file" {
		t.Errorf("then %q, %v", body, err)
	}
}
