package intercept

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/proxy"
)

// maxConnectResponse bounds a corporate proxy's response headers, in bytes.
const maxConnectResponse = 64 << 10

// errOwn is the error for a connection to the process itself.
var errOwn = errors.New("the address is a listener of this process")

// DialThrough returns a dialer for [Options.Dial] that connects through a corporate proxy.
// forward returns the proxy for the https URL of an address, or nil for a direct connection;
// a nil forward means direct connections only. The proxy's scheme is http, https, socks5 or
// socks5h. roots verifies an https proxy; nil: the system's roots do.
func DialThrough(forward func(*url.URL) (*url.URL, error), roots *x509.CertPool) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		var via *url.URL
		if forward != nil {
			var err error
			if via, err = forward(&url.URL{Scheme: "https", Host: address}); err != nil {
				return nil, fmt.Errorf("choosing the corporate proxy: %w", err)
			}
		}
		if via == nil {
			return dialTCP(ctx, address)
		}
		conn, err := dialProxy(ctx, via, roots)
		if err != nil {
			return nil, &corporateProxyError{cause: err}
		}
		ask := connectThrough
		if strings.HasPrefix(via.Scheme, "socks5") {
			ask = socksThrough
		}
		through, err := ask(ctx, conn, via, address)
		if err != nil {
			_ = conn.Close() // the first error is the one to report
			return nil, err
		}
		return through, nil
	}
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := rejectOwn(ctx, conn); err != nil {
		return nil, err
	}
	return conn, nil
}

// proxyPorts are the default ports of corporate proxies by scheme.
var proxyPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// dialProxy connects to a corporate proxy, with TLS if its scheme is https.
func dialProxy(ctx context.Context, via *url.URL, roots *x509.CertPool) (net.Conn, error) {
	port := proxyPorts[via.Scheme]
	if port == "" {
		return nil, fmt.Errorf("its scheme %q is not http, https, socks5 or socks5h", via.Scheme)
	}
	if own := via.Port(); own != "" {
		port = own
	}
	conn, err := dialTCP(ctx, net.JoinHostPort(via.Hostname(), port))
	if err != nil || via.Scheme != "https" {
		return conn, err
	}
	secure := tls.Client(conn, &tls.Config{ServerName: via.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the first error is the one to report
		return nil, err
	}
	return secure, nil
}

// connectThrough opens a tunnel through a corporate proxy with CONNECT.
func connectThrough(ctx context.Context, conn net.Conn, via *url.URL, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks Write and Read
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: make(http.Header)}
	if via.User != nil {
		password, _ := via.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, &corporateProxyError{cause: err}
	}
	buffered := bufio.NewReader(io.LimitReader(conn, maxConnectResponse))
	res, err := http.ReadResponse(buffered, req)
	if err != nil {
		return nil, &corporateProxyError{cause: err}
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close() // the connection is closed
		return nil, &corporateProxyError{status: res.StatusCode}
	}
	if !stop() {
		return nil, ctx.Err()
	}
	early, err := buffered.Peek(buffered.Buffered())
	return &earlyConn{Conn: conn, early: early}, err
}

// socksThrough opens a tunnel through a SOCKS5 proxy (RFC 1928). The proxy resolves the name.
func socksThrough(ctx context.Context, conn net.Conn, via *url.URL, address string) (net.Conn, error) {
	var auth *proxy.Auth
	if via.User != nil {
		password, _ := via.User.Password()
		auth = &proxy.Auth{User: via.User.Username(), Password: password}
	}
	dialer, err := proxy.SOCKS5("tcp", via.Host, auth, nil)
	if err != nil {
		return nil, &corporateProxyError{cause: err}
	}
	asker, ok := dialer.(interface {
		DialWithConn(ctx context.Context, conn net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return nil, &corporateProxyError{cause: errors.ErrUnsupported}
	}
	if _, err := asker.DialWithConn(ctx, conn, "tcp", address); err != nil {
		return nil, &corporateProxyError{cause: err}
	}
	return conn, nil
}

// earlyConn is a connection with bytes that were already read from it.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// CloseWrite closes the sending half of the connection.
func (c *earlyConn) CloseWrite() error { return closeWrite(c.Conn) }

// corporateProxyError is the error if the corporate proxy opens no tunnel.
type corporateProxyError struct {
	status int // of the response to CONNECT; 0: there was none
	cause  error
}

func (e *corporateProxyError) Error() string {
	if e.status != 0 {
		return fmt.Sprintf("the corporate proxy responded to CONNECT with status %d", e.status)
	}
	return fmt.Sprintf("the corporate proxy cannot be used: %v", e.cause)
}

func (e *corporateProxyError) Unwrap() error { return e.cause }

// explainDial explains to the client why another host cannot be reached.
func explainDial(err error) string {
	if refused, ok := errors.AsType[*corporateProxyError](err); ok {
		switch refused.status {
		case 0:
			return "The corporate proxy cannot be reached. Check HTTPS_PROXY."
		case http.StatusProxyAuthRequired:
			return "The corporate proxy rejected the user and password in HTTPS_PROXY (status 407). Correct them."
		}
		return fmt.Sprintf("The corporate proxy rejected the tunnel with status %d. Ask its operator, or set NO_PROXY.", refused.status)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return "The host's name cannot be resolved. Check the name; behind a corporate proxy, set HTTPS_PROXY."
	}
	return "The host cannot be reached. Check the network and firewall; behind a corporate proxy, set HTTPS_PROXY."
}

type ownKey struct{}

// withOwn returns a context for which dials to the process's own listeners fail.
func withOwn(ctx context.Context, isOwn func(net.Addr) bool) context.Context {
	return context.WithValue(ctx, ownKey{}, isOwn)
}

// rejectOwn closes conn and returns errOwn if conn leads to the process itself.
func rejectOwn(ctx context.Context, conn net.Conn) error {
	if isOwn, ok := ctx.Value(ownKey{}).(func(net.Addr) bool); ok && isOwn(conn.RemoteAddr()) {
		return errors.Join(errOwn, conn.Close())
	}
	return nil
}

// isOwn returns a func that reports whether an address belongs to a listener of the process.
// Known are the listener of the request, those of Serve, and those of Options.Own.
func (p *Proxy) isOwn(ctx context.Context) func(net.Addr) bool {
	var own []net.Addr
	if here, ok := ctx.Value(http.LocalAddrContextKey).(net.Addr); ok {
		own = append(own, here)
	}
	if p.o.Own != nil {
		own = append(own, p.o.Own()...)
	}
	p.mu.Lock()
	own = append(own, p.listeners...)
	p.mu.Unlock()
	return func(remote net.Addr) bool {
		for _, listener := range own {
			if reaches(remote, listener) {
				return true
			}
		}
		return false
	}
}

// reaches reports whether listener may have accepted a connection to remote.
func reaches(remote, listener net.Addr) bool {
	to, err := netip.ParseAddrPort(remote.String())
	at, failed := netip.ParseAddrPort(listener.String())
	if err != nil || failed != nil || to.Port() != at.Port() {
		return false
	}
	ip := to.Addr().Unmap().WithZone("")
	return ip == at.Addr().Unmap().WithZone("") || at.Addr().IsUnspecified() && isLocal(ip)
}

// isLocal reports whether an address belongs to this machine.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true // reject the tunnel rather than risk a loop
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}
