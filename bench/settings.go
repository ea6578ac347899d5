package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
)

// More listeners of the proxy, for the settings.
const (
	tlsPort         = "18182"
	interceptPort   = "18183"
	interceptedHost = "eu-api.mimecast.com"
)

// setting is a way to configure and reach the proxy. Its clients keep their connections, so
// the cost of a request includes no handshake.
type setting struct {
	name     string
	port     string // that clients connect to; empty means proxyPort
	protocol string // as in ALPN; empty means no TLS
	keys     bool   // each connection uses another client's key
	environ  []string

	ip   string // that it listens on, so that all settings can be measured at the same time
	host string // that clients ask for
}

// settings returns the settings to compare. The first is the default.
func (b *bench) settings() []setting {
	all := []setting{
		{name: "default"},
		{name: "100 clients", keys: true, environ: []string{"PROXY_CLIENTS_FILE=" + filepath.Join(b.dir, clientsFile)}},
		{name: "pacing", environ: []string{"PROXY_RATE_LIMIT_PACE=on", "PROXY_RATE_LIMIT_WAIT=10s"}},
		{name: "TLS port, HTTP/1.1", port: tlsPort, protocol: "http/1.1"},
		{name: "TLS port, HTTP/2", port: tlsPort, protocol: "h2"},
		{name: "interception, HTTP/1.1", port: interceptPort, protocol: "http/1.1"},
		{name: "interception, HTTP/2", port: interceptPort, protocol: "h2"},
	}
	for i := range all {
		s := &all[i]
		s.ip, s.host = loopback(i), "localhost"
		if s.port != "" { // without a certificate, the interception CA issues that of the TLS port
			s.environ = append(s.environ, "PROXY_INTERCEPT_LISTEN="+net.JoinHostPort(s.ip, interceptPort))
		}
		switch s.port {
		case tlsPort:
			s.environ = append(s.environ, "PROXY_TLS_LISTEN="+net.JoinHostPort(s.ip, tlsPort))
		case interceptPort:
			s.host = interceptedHost
		default:
			s.port = proxyPort
		}
	}
	return all
}

const (
	clientsFile = "clients.json"
	clientCount = 100
)

// writeClients writes a clients file to dir.
func writeClients(dir string) error {
	type key struct {
		SHA256 string `json:"sha256"`
	}
	type client struct {
		Keys []key `json:"keys"`
	}
	clients := map[string]client{}
	for i := range clientCount {
		clients[fmt.Sprintf("client-%d", i)] = client{[]key{{fmt.Sprintf("%x", sha256.Sum256([]byte(clientKey(i))))}}}
	}
	text, err := json.Marshal(map[string]any{"clients": clients})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, clientsFile), text, 0o600)
}

func clientKey(i int) string { return fmt.Sprintf("bench-key-%054d", i) }

// measureSettings measures the cost of a request in each setting.
func (b *bench) measureSettings(ctx context.Context) error {
	if err := writeClients(b.dir); err != nil {
		return err
	}
	s := b.report.section("settings", "By setting, upstream over HTTP/2", "Responses of 1 KiB, each of which states a quota, over kept connections. With HTTP/2, each connection has one request at a time. *100 clients* have a key each, in a clients file.")
	var launches []launch
	for _, one := range b.settings() {
		s.names = append(s.names, one.name)
		launches = append(launches, launch{name: one.name, host: one.ip, http2: true, environ: one.environ, open: one.opener()})
	}
	return b.inRounds(ctx, upstreamOptions{HTTP2: true, Quota: true, TokenTTL: longTokenTTL}, func() error {
		return b.addWork(ctx, s, b.loads(), launches...)
	})
}

// opener returns a function that opens a proxy's connections one by one.
func (s setting) opener() func(context.Context) (*client, error) {
	var number atomic.Int64
	return func(ctx context.Context) (*client, error) {
		request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n", quotaPath, s.host)
		if s.keys {
			request += "X-Proxy-Key: " + clientKey(int(number.Add(1)%clientCount)) + "\r\n"
		}
		return s.connect(ctx, []byte(request+"\r\n"))
	}
}

// connect opens a connection that repeats the request.
func (s setting) connect(ctx context.Context, request []byte) (*client, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if s.protocol != "" {
		roots, err := fetchCA(ctx, s.ip)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: s.host, NextProtos: []string{s.protocol}})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		conn = secure
	}
	if s.protocol == "h2" {
		return s.connectHTTP2(conn)
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), request: request}, nil
}

// connectHTTP2 sends requests with net/http. It costs this process more, but only the proxy
// is measured.
func (s setting) connectHTTP2(conn net.Conn) (*client, error) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	ask := func() (int64, error) {
		res, err := transport.RoundTrip(&http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "https", Host: s.host, Path: quotaPath}, Header: http.Header{}})
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

// dial opens a connection to the proxy, or a tunnel to Mimecast's host, like a client with
// HTTPS_PROXY.
func (s setting) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(s.ip, s.port))
	if err != nil || s.port != interceptPort {
		return conn, err
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s:443\r\n\r\n", interceptedHost); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) // no bytes follow until the handshake
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = res.Body.Close() // the response has no body
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("CONNECT: %s", res.Status), conn.Close())
	}
	return conn, nil
}

// fetchCA gets the interception CA's certificate from the admin listener at an IP address.
func fetchCA(ctx context.Context, ip string) (*x509.CertPool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(ip, adminPort)+"/ca.pem", nil)
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
