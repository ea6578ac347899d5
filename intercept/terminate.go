package intercept

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

var errServerName = errors.New("the client's TLS server name differs from the name in CONNECT")

// tlsConfig returns the configuration of all terminated tunnels. They share it, so that
// clients can resume sessions.
func (p *Proxy) tlsConfig() *tls.Config {
	config := p.o.Authority.TLSConfig("")
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == "" {
			return nil, nil
		}
		if host, err := parseHost(hello.ServerName); err != nil || host != hello.Conn.(*tunnel).report.Host {
			return nil, errServerName
		}
		return nil, nil
	}
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return p.o.Authority.Certificate(hello.Conn.(*tunnel).report.Host)
	}
	return config
}

// protocols returns HTTP/1.1, and HTTP/2 over TLS if h2.
func protocols(h2 bool) *http.Protocols {
	var ps http.Protocols
	ps.SetHTTP1(true)
	ps.SetHTTP2(h2)
	return &ps
}

type contextKey int

const (
	tunnelKey contextKey = iota
	baseURLKey
	credentialsKey
)

// newInner returns the server of the requests inside terminated tunnels.
func (p *Proxy) newInner() *http.Server {
	s := p.o.Server(http.HandlerFunc(p.serveTerminated))
	s.Protocols = protocols(true)
	s.DisableGeneralOptionsHandler = true // OPTIONS * is the handler's, as on the data port
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, tunnelKey, tunnelOf(c))
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		tunnelOf(c).serving.Store(state == http.StateActive)
	}
	setDefault(&s.IdleTimeout, p.o.IdleTimeout)
	setDefault(&s.ReadHeaderTimeout, p.o.HandshakeTimeout)
	return s
}

func tunnelOf(c net.Conn) *tunnel { return c.(*tls.Conn).NetConn().(*tunnel) }

// terminate makes the TLS handshake with the client and serves its requests, without waiting
// for them.
func (p *Proxy) terminate(t *tunnel) {
	ctx, cancel := context.WithTimeout(p.stopping, p.o.HandshakeTimeout)
	defer cancel()
	conn := tls.Server(t, p.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		if p.stopping.Err() != nil {
			t.wasCut.Store(true)
		}
		_ = t.Close() // the handshake's error is the one to report
		t.finish(event.InterceptHandshakeFailed, err)
		return
	}
	t.secure.Store(true)
	p.startInner.Do(func() { go func() { _ = p.inner.Serve(p.terminated) }() }) // ends with Shutdown or Close
	if p.terminated.put(p.stopping, conn) != nil {
		t.cut()
	}
}

// serveTerminated serves a request that came through a terminated tunnel.
func (p *Proxy) serveTerminated(w http.ResponseWriter, r *http.Request) {
	t := r.Context().Value(tunnelKey).(*tunnel)
	if !t.authorized(r.Context()) {
		w.Header().Set("Connection", "close") // ends HTTP/2 connections, too
		p.respond(w, r, problem.New(event.ProxyAuthRequired, "The forward proxy no longer accepts this tunnel's password. Give the client the current proxy URL."))
		return
	}
	want := target{t.report.Host, httpsPort}
	if got, err := parseTarget(r.Host, httpsPort); err != nil || got != want {
		p.respond(w, r, problem.New(event.MisdirectedRequest, "This connection is for %s, and the request's Host is another. Use one connection per host.", want.host))
		return
	}
	p.serve(w, r, "https", want.host, t.credentials)
}

// serve hands a request to the handler, as one for host of the client with these
// credentials.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, scheme, host string, from credentials) {
	ctx := context.WithValue(r.Context(), baseURLKey, scheme+"://"+host)
	r = r.WithContext(context.WithValue(ctx, credentialsKey, from))
	r.Host = host
	r.Header.Del("Proxy-Authorization")
	r.Header.Del("Proxy-Connection")
	if r.URL.IsAbs() && r.Method != http.MethodConnect {
		origin := originForm(r.RequestURI)
		u, err := url.ParseRequestURI(origin)
		if err != nil || r.URL.Host == "" {
			p.respond(w, r, problem.New(event.BadRequestTarget, "The request target is malformed."))
			return
		}
		r.RequestURI, r.URL = origin, u
	}
	p.o.Handler.ServeHTTP(w, r)
}

// originForm returns the path and query of an absolute-form target, byte for byte.
func originForm(absolute string) string {
	_, rest, _ := strings.Cut(absolute, "://")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// BaseURL returns the scheme and host that the client called, such as
// https://eu-api.mimecast.com; empty for a request that did not come through a Proxy.
func BaseURL(ctx context.Context) string {
	base, _ := ctx.Value(baseURLKey).(string)
	return base
}

// Authorization returns the Proxy-Authorization that a request came with, or that its
// tunnel was opened with; ok is false for a request that did not come through a Proxy.
func Authorization(ctx context.Context) (values []string, ok bool) {
	from, ok := ctx.Value(credentialsKey).(credentials)
	if from == nil {
		return nil, ok
	}
	return from(), ok
}
