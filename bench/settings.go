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
	tlsAddress       = "127.0.0.1:18182"
	interceptAddress = "127.0.0.1:18183"
	interceptedHost  = "eu-api.mimecast.com"
	adminAddress     = "127.0.0.1:" + adminPort
)

// setting is a way to configure and reach the proxy. Its clients keep their connections, so
// the cost of a request includes no handshake.
type setting struct {
	name     string
	environ  []string
	host     string // that clients connect to
	protocol string // as in ALPN; empty means no TLS
	dial     func(ctx context.Context) (net.Conn, error)
	keys     bool // each connection uses another client's key
}

// settings returns the settings to compare. The first is the default.
func (b *bench) settings() []setting {
	secured, intercepted := []string{"PROXY_TLS_LISTEN=" + tlsAddress}, []string{"PROXY_INTERCEPT_LISTEN=" + interceptAddress}
	return []setting{
		{name: "default", host: "localhost", dial: dialTCP(proxyAddress)},
		{name: "100 clients", host: "localhost", dial: dialTCP(proxyAddress), keys: true, environ: []string{"PROXY_CLIENTS_FILE=" + filepath.Join(b.dir, clientsFile)}},
		{name: "pacing", host: "localhost", dial: dialTCP(proxyAddress), environ: []string{"PROXY_RATE_LIMIT_PACE=on", "PROXY_RATE_LIMIT_WAIT=10s"}},
		// Without a certificate, the interception CA issues one.
		{name: "TLS port, HTTP/1.1", host: "localhost", protocol: "http/1.1", dial: dialTCP(tlsAddress), environ: append(intercepted, secured...)},
		{name: "TLS port, HTTP/2", host: "localhost", protocol: "h2", dial: dialTCP(tlsAddress), environ: append(intercepted, secured...)},
		{name: "interception, HTTP/1.1", host: interceptedHost, protocol: "http/1.1", dial: dialIntercepted, environ: intercepted},
		{name: "interception, HTTP/2", host: interceptedHost, protocol: "h2", dial: dialIntercepted, environ: intercepted},
	}
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
	var names []string
	launches := map[string]launch{}
	for _, one := range b.settings() {
		names = append(names, one.name)
		launches[one.name] = launch{name: one.name, http2: true, environ: one.environ, open: one.opener()}
	}
	s.names = names
	return b.measureEach(ctx, upstreamOptions{HTTP2: true, Quota: true, TokenTTL: longTokenTTL}, names, func(name string) error {
		return b.addWork(ctx, s, b.loads(), launches[name])
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

func dialTCP(address string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
}

// connect opens a connection that repeats the request.
func (s setting) connect(ctx context.Context, request []byte) (*client, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	if s.protocol != "" {
		roots, err := fetchCA(ctx)
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

// dialIntercepted opens a tunnel to Mimecast's host, like a client with HTTPS_PROXY.
func dialIntercepted(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", interceptAddress)
	if err != nil {
		return nil, err
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

// fetchCA gets the interception CA's certificate from the admin listener.
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
