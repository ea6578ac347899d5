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
	name string
	host string // in the requests; empty: localhost
	dial func(ctx context.Context, roots *x509.CertPool) (net.Conn, error)
}

// ways are the plain port, the TLS port, and the forward proxy's terminated tunnels. The
// clients keep their connections, so that a handshake is no part of a request's cost.
var ways = []way{
	{"plain port", "", func(ctx context.Context, _ *x509.CertPool) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", proxyAddress)
	}},
	{"TLS port", "", func(ctx context.Context, roots *x509.CertPool) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", tlsAddress)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, conn, roots, "localhost")
	}},
	{"interception", interceptedHost, dialIntercepted},
}

// dialIntercepted opens a tunnel to Mimecast's host, as a client with HTTPS_PROXY does.
func dialIntercepted(ctx context.Context, roots *x509.CertPool) (net.Conn, error) {
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
	return handshake(ctx, conn, roots, interceptedHost)
}

func handshake(ctx context.Context, conn net.Conn, roots *x509.CertPool, name string) (net.Conn, error) {
	secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// measureWays measures the cost of a request by the way that it comes.
func (b *bench) measureWays(ctx context.Context) error {
	up, err := b.startUpstream(ctx, upstreamOptions{HTTP2: true, TokenTTL: longTokenTTL})
	if err != nil {
		return err
	}
	defer up.stop()
	s := b.report.section("By the way a client comes", "Answers of 1 KiB over HTTP/1.1, as many as can be, on kept connections; upstream over HTTP/2. CPU is the proxy's own, per request.")
	for range b.rounds {
		for _, way := range ways {
			for _, connections := range b.connections {
				cpu, err := b.measureWay(ctx, way, connections)
				if err != nil {
					return fmt.Errorf("%s: %w", way.name, err)
				}
				s.add(fmt.Sprintf("CPU per request by the %s, %d connections", way.name, connections), "µs", ours, cpu)
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
	l := load{request: get(smallResponse), connections: connections, warmup: b.duration / 4, duration: b.duration}
	if way.host != "" {
		l.request = bytes.Replace(l.request, []byte("Host: localhost"), []byte("Host: "+way.host), 1)
	}
	l.dial = func(ctx context.Context) (net.Conn, error) { return way.dial(ctx, roots) }
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
