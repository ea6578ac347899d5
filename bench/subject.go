package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The proxies to measure. Each is restarted for each measurement, listens on a local port
// and uses the same upstream.
const (
	ours    = "mimecast-proxy"
	naive   = "naive Go"
	nginx   = "nginx"
	haproxy = "haproxy"
	direct  = "no proxy"
)

// launch describes how to start a proxy.
type launch struct {
	name    string
	host    string   // loopback address to listen on; empty means that of proxyAddress
	http2   bool     // to the upstream; only for haproxy, since the others negotiate
	environ []string // additional variables for the program
	prefix  []string // the command that runs the proxy, if any
	// open connects a client, if not to the plain port.
	open func(context.Context) (*client, error)
}

// bench is one run of the benchmarks.
type bench struct {
	dir         string // for certificates and configuration files
	binary      string // path of the proxy
	otherBinary string // path of another build of the proxy, or empty
	self        string
	subjects    []string
	rounds      int
	// connections are the connection counts at which the cost is measured.
	connections []int
	duration    time.Duration
	idle        time.Duration // how long to watch an idle proxy
	report      *report
	counters    counters // events that perf can count here
	strace      bool     // whether strace can count writes by destination
	limits      gateLimits
}

const (
	proxyCore = 0
	restCore  = 1

	proxyPort       = "18180"
	adminPort       = "18190"
	proxyAddress    = "127.0.0.1:" + proxyPort
	upstreamAddress = "127.0.0.1:18443"
	plainAddress    = "127.0.0.1:18444"
)

// startUpstream starts the simulated Mimecast.
func (b *bench) startUpstream(ctx context.Context, o upstreamOptions) (*process, error) {
	p, err := start(ctx, restCore, []string{"GOGC=400"}, b.self, "-role", "upstream", "-dir", b.dir,
		"-http2="+strconv.FormatBool(o.HTTP2), "-quota="+strconv.FormatBool(o.Quota), "-token-ttl", o.TokenTTL.String(), "-token-delay", o.TokenDelay.String())
	if err != nil {
		return nil, err
	}
	return p, awaitPort(ctx, plainAddress)
}

// installed returns the names that can be started here.
func installed(names []string) []string {
	var found []string
	for _, name := range names {
		_, err := exec.LookPath(name)
		if name == ours || name == naive || err == nil {
			found = append(found, name)
		}
	}
	return found
}

// startProxy starts a proxy and returns once it has sent a response.
func (b *bench) startProxy(ctx context.Context, l launch) (*process, error) {
	var p *process
	var err error
	switch l.name {
	case naive:
		p, err = l.start(ctx, []string{"SSL_CERT_FILE=" + filepath.Join(b.dir, "ca.pem")}, b.self, "-role", "naive", "-listen", l.address(proxyPort))
	case floor, withToken, withGuard:
		p, err = l.start(ctx, nil, b.self, "-role", "rung", "-listen", l.address(proxyPort), "-rung", l.name, "-dir", b.dir)
	case nginx:
		p, err = b.startConfigured(ctx, l, "nginx.conf", nginxConf, "nginx", "-e", "stderr", "-p", b.dir, "-c")
	case haproxy:
		p, err = b.startConfigured(ctx, l, "haproxy.cfg", haproxyConf, "haproxy", "-db", "-f")
	case quiet:
		p, err = l.start(ctx, append(b.environment(l), "PROXY_LOG_LEVEL=warn"), b.binary)
	case other:
		p, err = l.start(ctx, b.environment(l), b.otherBinary)
	default: // ours, with any settings
		p, err = l.start(ctx, append(b.environment(l), l.environ...), b.binary)
	}
	if err != nil {
		return nil, err
	}
	if err := b.awaitResponse(ctx, l); err != nil {
		defer p.stop()
		return nil, fmt.Errorf("%s: %w; it said: %s", l.name, err, p.output())
	}
	return p, nil
}

// start starts the proxy on its core.
func (l launch) start(ctx context.Context, environ []string, name string, args ...string) (*process, error) {
	command := append(append(slices.Clone(l.prefix), name), args...)
	return start(ctx, proxyCore, environ, command[0], command[1:]...)
}

// address returns an address of the proxy.
func (l launch) address(port string) string {
	return net.JoinHostPort(cmp.Or(l.host, "127.0.0.1"), port)
}

// environment configures the proxy with all default features enabled.
func (b *bench) environment(l launch) []string {
	return []string{
		"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=secret", "MIMECAST_BASE_URL=https://" + upstreamAddress,
		"MIMECAST_CA_FILE=" + filepath.Join(b.dir, "ca.pem"), "PROXY_LISTEN=" + l.address(proxyPort),
		"PROXY_ADMIN_LISTEN=" + l.address(adminPort), "PROXY_MAX_REQUESTS=20000",
	}
}

// awaitResponse retries until the proxy responds.
func (b *bench) awaitResponse(ctx context.Context, l launch) error {
	var last error
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(100 * time.Microsecond) {
		c, err := load{address: l.address(proxyPort), open: l.open, request: get(1)}.connect(ctx)
		if err == nil {
			_, err = c.do()
			_ = c.conn.Close()
		}
		if last = err; err == nil {
			return nil
		}
	}
	return fmt.Errorf("no response within 10s: %w", last)
}

// startConfigured starts a proxy with a configuration file as its last argument.
func (b *bench) startConfigured(ctx context.Context, l launch, file, text, name string, args ...string) (*process, error) {
	alpn := "http/1.1"
	if l.http2 {
		alpn = "h2"
	}
	text = strings.NewReplacer("{dir}", b.dir, "{listen}", l.address(proxyPort), "{upstream}", upstreamAddress, "{alpn}", alpn).Replace(text)
	path := filepath.Join(b.dir, file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return l.start(ctx, nil, name, append(args, path)...)
}

// nginx and haproxy verify the upstream's certificate and keep upstream connections. They
// write no access log, which favors them: the others run with their defaults.
const nginxConf = `
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  upstream mimecast { server {upstream}; keepalive 256; keepalive_requests 100000000; }
  server {
    listen {listen} backlog=4096;
    location / {
      proxy_pass https://mimecast;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer fixed";
      proxy_ssl_trusted_certificate {dir}/ca.pem;
      proxy_ssl_verify on;
      proxy_ssl_name localhost;
      proxy_ssl_protocols TLSv1.3;
    }
  }
}
`

const haproxyConf = `
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 10s
  timeout client 2m
  timeout server 2m
frontend data
  bind {listen}
  default_backend mimecast
backend mimecast
  http-request set-header Authorization "Bearer fixed"
  http-reuse always
  server mimecast {upstream} ssl verify required ca-file {dir}/ca.pem verifyhost localhost alpn {alpn} pool-max-conn 256
`
