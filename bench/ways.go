package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Further listeners of the proxy, for ways.
const (
	tlsAddress       = "127.0.0.1:18182"
	interceptAddress = "127.0.0.1:18183"
	interceptedHost  = "eu-api.mimecast.com"
	adminAddress     = "127.0.0.1:18190"
)

// way is a way by which a client reaches the proxy.
type way struct {
	name     string
	host     string // that the client calls
	protocol string // as in ALPN; empty: without TLS
	dial     func(ctx context.Context) (net.Conn, error)
}

// ways are the plain port, the TLS port, and the forward proxy's terminated tunnels. The
// clients keep their connections, so that a handshake is no part of a request's cost.
var ways = []way{
	{"plain port", "localhost", "", dialTCP(proxyAddress)},
	{"TLS port, HTTP/1.1", "localhost", "http/1.1", dialTCP(tlsAddress)},
	{"TLS port, HTTP/2", "localhost", "h2", dialTCP(tlsAddress)},
	{"interception, HTTP/1.1", interceptedHost, "http/1.1", dialIntercepted},
	{"interception, HTTP/2", interceptedHost, "h2", dialIntercepted},
}

func dialTCP(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
}

// connect opens a connection that asks for small responses.
func (w way) connect(ctx context.Context, roots *x509.CertPool) (*client, error) {
	conn, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	if w.protocol != "" {
		secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: w.host, NextProtos: []string{w.protocol}})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = secure
	}
	if w.protocol == "h2" {
		return w.connectHTTP2(conn)
	}
	request := bytes.Replace(get(smallResponse), []byte("Host: localhost"), []byte("Host: "+w.host), 1)
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), request: request}, nil
}

// connectHTTP2 has net/http speak on a connection. It costs this process more, which is
// not measured.
func (w way) connectHTTP2(conn net.Conn) (*client, error) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	ask := func() (int64, error) {
		res, err := transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: w.host, Path: fmt.Sprintf("/bytes/%d", smallResponse)}, Header: http.Header{}})
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
			return 0, fmt.Errorf("%w: %s %s", errUnexpectedResponse, res.Proto, res.Status)
		}
		return io.Copy(io.Discard, res.Body)
	}
	return &client{conn: conn, ask: ask}, nil
}

// dialIntercepted opens a tunnel to Mimecast's host, as a client with HTTPS_PROXY does.
func dialIntercepted(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", interceptAddress)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", interceptedHost); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) // nothing follows until the handshake
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = res.Body.Close() // it has none
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("CONNECT: %s", res.Status), conn.Close())
	}
	return conn, nil
}

// measureWays measures the cost of a request by the way that it comes.
func (b *bench) measureWays(ctx context.Context) error {
	up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL})
	if err != nil {
		return err
	}
	defer up.stop()
	s := b.report.section("By the way a client comes", "Answers of 1 KiB, as many as can be, one at a time on each kept connection; upstream over HTTP/2. CPU is the proxy's own, per request.")
	for range b.rounds {
		for _, way := range ways {
			for _, connections := range b.connections {
				cpu, err := b.measureWay(ctx, way, connections)
				if err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				s.add(fmt.Sprintf("%s, %d connections", way.name, connections), "µs", ours, cpu)
			}
		}
	}
	return nil
}

func (b *bench) measureWay(ctx context.Context, way way, connections int) (microseconds float64, err error) {
	environ := append(b.environment(), "PROXY_TLS_LISTEN="+tlsAddress, "PROXY_INTERCEPT_LISTEN="+interceptAddress)
	p, err := start(ctx, proxyCore, environ, b.binary)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := b.awaitResponse(ctx); err != nil {
		return 0, err
	}
	roots, err := fetchCA(ctx)
	if err != nil {
		return 0, err
	}
	l := load{connections: connections, warmup: b.duration / 4, duration: b.duration}
	l.open = func(ctx context.Context) (*client, error) { return way.connect(ctx, roots) }
	var cpu time.Duration
	m, err := l.run(ctx, func(part func()) {
		before := p.cpu()
		part()
		cpu = p.cpu() - before
	})
	if err == nil && m.Errors > 0 {
		err = fmt.Errorf("%d errors, such as: %w", m.Errors, m.failure)
	}
	if err != nil {
		return 0, err
	}
	return float64(cpu.Nanoseconds()) / 1e3 / float64(m.Requests), nil
}

// fetchCA asks the admin listener for the certificate of interception's authority.
func fetchCA(ctx context.Context) (*x509.CertPool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+adminAddress+"/ca.pem", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("/ca.pem: %s", res.Status)
	}
	return roots, nil
}
