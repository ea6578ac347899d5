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

// tlsConfig returns the configuration for terminated tunnels. All of them share it, so that
// clients can resume TLS sessions.
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

// protocols returns HTTP/1.1, and also HTTP/2 over TLS if h2 is true.
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

// newInner returns the server for requests inside terminated tunnels.
func (p *Proxy) newInner() *http.Server {
	s := p.o.Server(http.HandlerFunc(p.serveTerminated))
	s.Protocols = protocols(true)
	s.DisableGeneralOptionsHandler = true // the handler gets OPTIONS *, as on the data port
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

// terminate performs the TLS handshake with the client and passes the connection to the inner
// server. It does not wait for the requests.
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

// serveTerminated serves a request inside a terminated tunnel. It repeats the authorization,
// since the credentials may have been revoked, and rejects a Host other than CONNECT's.
func (p *Proxy) serveTerminated(w http.ResponseWriter, r *http.Request) {
	t := r.Context().Value(tunnelKey).(*tunnel)
	if !t.authorized(r.Context()) {
		w.Header().Set("Connection", "close") // also ends an HTTP/2 connection
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

// serve passes a request to the handler. It sets the host, scheme and credentials, converts an
// absolute-form target to origin-form, and removes the proxy headers.
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
// https://eu-api.mimecast.com. It returns an empty string if the request did not come through
// a [Proxy]. ctx is the request's context.
func BaseURL(ctx context.Context) string {
	base, _ := ctx.Value(baseURLKey).(string)
	return base
}

// Authorization returns the Proxy-Authorization values of a request, or of the CONNECT request
// that opened its tunnel. ok is false if the request did not come through a [Proxy]. ctx is
// the request's context.
func Authorization(ctx context.Context) (values []string, ok bool) {
	from, ok := ctx.Value(credentialsKey).(credentials)
	if from == nil {
		return nil, ok
	}
	return from(), ok
}
