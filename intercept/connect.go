package intercept

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

const httpsPort = 443

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// rejection is the error response to a request to the forward proxy, with the outcome to
// report.
type rejection struct {
	*problem.Problem
	outcome event.InterceptOutcome
}

func reject(outcome event.InterceptOutcome, code event.Code, detail string, args ...any) *rejection {
	return &rejection{problem.New(code, detail, args...), outcome}
}

// ServeHTTP serves a request to the forward proxy itself: CONNECT, or an absolute-form target.
// It opens tunnels on HTTP/1.1 connections only.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	report := Tunnel{Peer: r.RemoteAddr}
	if p.o.NewID != nil {
		report.ID = p.o.NewID()
	}
	to, rejected := p.check(r)
	report.Host, report.Port = to.host, to.port
	report.Intercepted = to.host != "" && p.o.Intercepted(to.host)
	if rejected == nil && r.Method != http.MethodConnect {
		p.serve(w, r, r.URL.Scheme, to.host, credentialsOf(r))
		return
	}
	if rejected == nil {
		rejected = p.connect(w, r, &tunnel{proxy: p, report: report, began: began, authorized: p.reauthorize(r), credentials: credentialsOf(r)}, to)
	}
	if rejected == nil {
		return // the tunnel reports its end
	}
	if report.ID != "" {
		w.Header().Set("X-Request-Id", report.ID)
	}
	p.respond(w, r, rejected.Problem)
	p.done(report, rejected.outcome, rejected.Problem, began)
}

// respond sends an error response. It discards the rest of the request body, so that a reset
// does not reach the client before the response.
func (p *Proxy) respond(w http.ResponseWriter, r *http.Request, with *problem.Problem) {
	if with.Code == event.ProxyAuthRequired {
		w.Header().Set("Proxy-Authenticate", `Basic realm="mimecast-proxy"`)
	}
	if r.ProtoMajor > 1 || r.Body == nil || r.Body == http.NoBody || http.NewResponseController(w).EnableFullDuplex() != nil {
		with.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Connection", "close")
	with.ServeHTTP(w, r)
	problem.Discard(w, r.Body)
}

// check returns the target of a request, or why the request is rejected.
func (p *Proxy) check(r *http.Request) (target, *rejection) {
	if !p.authorized(r) {
		return target{}, reject(event.InterceptUnauthorized, event.ProxyAuthRequired, "The forward proxy needs its password. Give the client the whole proxy URL, with user and password.")
	}
	if r.Method == http.MethodConnect {
		return p.checkConnect(r)
	}
	return p.checkAbsolute(r)
}

func (p *Proxy) checkConnect(r *http.Request) (target, *rejection) {
	to, err := parseTarget(r.RequestURI, 0)
	switch {
	case err != nil || r.ContentLength != 0:
		return target{}, reject(event.InterceptNotAllowed, event.BadRequestTarget, "CONNECT needs a host name or an IP address and a port, and no body.")
	case p.o.Intercepted(to.host) && to.port != httpsPort:
		return to, reject(event.InterceptNotAllowed, event.TunnelNotAllowed, "Only port 443 of %s can be reached through the proxy.", to.host)
	case !p.o.Intercepted(to.host) && p.o.MimecastOnly:
		return to, reject(event.InterceptNotAllowed, event.TunnelNotAllowed, "This proxy connects to Mimecast's API only. Exempt other hosts with NO_PROXY in the client.")
	}
	return to, nil
}

// defaultPorts are the ports of the schemes that absolute-form targets can have.
var defaultPorts = map[string]int{"http": 80, "https": httpsPort}

func (p *Proxy) checkAbsolute(r *http.Request) (target, *rejection) {
	port := defaultPorts[r.URL.Scheme]
	if port == 0 || r.URL.User != nil {
		return target{}, reject(event.InterceptNotAllowed, event.BadRequestTarget, "This is a forward proxy: set HTTPS_PROXY to it. To use a base URL, call the address of PROXY_LISTEN.")
	}
	to, err := parseTarget(r.URL.Host, port)
	switch {
	case err != nil:
		return target{}, reject(event.InterceptNotAllowed, event.BadRequestTarget, "The request target has no host name or IP address.")
	case !p.o.Intercepted(to.host):
		return to, reject(event.InterceptNotAllowed, event.TunnelNotAllowed, "Plain HTTP is forwarded to Mimecast's API only. Unset HTTP_PROXY in the client, and keep HTTPS_PROXY.")
	case to.port != port:
		return to, reject(event.InterceptNotAllowed, event.TunnelNotAllowed, "Only port %d of %s can be reached by %s.", port, to.host, r.URL.Scheme)
	}
	return to, nil
}

// authorized reports whether the request's client may use the proxy.
func (p *Proxy) authorized(r *http.Request) bool {
	if p.o.Authorize != nil {
		return p.o.Authorize(r)
	}
	if p.o.Password.IsZero() {
		return true
	}
	scheme, encoded, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	credentials, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	_, password, found := strings.Cut(string(credentials), ":")
	return err == nil && found && strings.EqualFold(scheme, "Basic") && p.o.Password.Equal(secret.New(password))
}

// credentials returns the values of a Proxy-Authorization header. A closure holds them, so that
// printing a request's context or a tunnel cannot reveal them.
type credentials func() []string

func credentialsOf(r *http.Request) credentials {
	values := r.Header["Proxy-Authorization"]
	return func() []string { return values }
}

// reauthorize returns a func that repeats the check of authorized for a CONNECT request. It
// keeps only a small copy of the request, since a tunnel can stay open for days.
func (p *Proxy) reauthorize(connect *http.Request) func(context.Context) bool {
	kept := &http.Request{
		Method: connect.Method, URL: connect.URL, Host: connect.Host, RequestURI: connect.RequestURI, RemoteAddr: connect.RemoteAddr,
		Header: http.Header{},
	}
	if values := connect.Header["Proxy-Authorization"]; values != nil {
		kept.Header["Proxy-Authorization"] = values
	}
	return func(ctx context.Context) bool { return p.authorized(kept.WithContext(ctx)) }
}

// connect opens a tunnel and serves it. For a tunnel to another host, it returns when the
// tunnel has ended.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request, t *tunnel, to target) *rejection {
	if rejected := p.add(t); rejected != nil {
		return rejected
	}
	if rejected := p.prepare(r, t, to); rejected != nil {
		p.remove(t)
		return rejected
	}
	if err := t.hijack(w); err != nil {
		if t.other != nil {
			_ = t.other.Close()
		}
		if t.Conn != nil {
			t.finish(event.InterceptClientGone, err)
			return nil
		}
		p.remove(t)
		return &rejection{problem.New(event.Other, "The proxy cannot open a tunnel on this connection.").Because(err), event.InterceptFailed}
	}
	if t.other == nil {
		p.terminate(t)
	} else {
		t.relay()
	}
	return nil
}

// add registers a tunnel, unless MaxTunnels are open. Terminated tunnels and others are counted
// separately, so that neither kind can use up the limit of the other.
func (p *Proxy) add(t *tunnel) *rejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping.Err() != nil {
		return reject(event.InterceptShutdown, event.ShuttingDown, "The proxy is shutting down.")
	}
	if p.counts[t.report.Intercepted] >= p.o.MaxTunnels {
		rejected := reject(event.InterceptTooBusy, event.TooBusy, "The forward proxy has %d tunnels open, its limit. Close some, or try again later.", p.o.MaxTunnels)
		rejected.RetryAfter = time.Second
		return rejected
	}
	t.lastByte.Store(t.began.UnixNano())
	p.counts[t.report.Intercepted]++
	p.tunnels[t] = struct{}{}
	return nil
}

func (p *Proxy) remove(t *tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[t.report.Intercepted]--
	delete(p.tunnels, t)
}

// prepare does what may fail before the client gets the 200 response: it issues the
// certificate, or connects to the other host.
func (p *Proxy) prepare(r *http.Request, t *tunnel, to target) *rejection {
	if t.report.Intercepted {
		if _, err := p.o.Authority.Certificate(to.host); err != nil {
			return &rejection{problem.New(event.Other, "The proxy has no certificate for %s.", to.host).Because(err), event.InterceptFailed}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(withOwn(r.Context(), p.isOwn(r.Context())), p.o.DialTimeout)
	defer cancel()
	defer context.AfterFunc(p.stopping, cancel)()
	other, err := p.o.Dial(ctx, to.String())
	if err == nil {
		err = rejectOwn(ctx, other)
	}
	switch {
	case err == nil:
		t.other = other
		return nil
	case errors.Is(err, errOwn):
		return &rejection{problem.New(event.TunnelNotAllowed, "The tunnel would lead back to the proxy. Check the target and HTTPS_PROXY.").Because(err), event.InterceptNotAllowed}
	case p.stopping.Err() != nil:
		return reject(event.InterceptShutdown, event.ShuttingDown, "The proxy is shutting down.")
	case r.Context().Err() != nil:
		return &rejection{problem.New(event.ClientGone, "The client left.").Because(err), event.InterceptClientGone}
	}
	return &rejection{problem.New(event.TunnelFailed, "%s", explainDial(err)).Because(err), event.InterceptUnreachable}
}

// hijack takes over the client's connection, and sends the 200 response that opens the tunnel.
func (t *tunnel) hijack(w http.ResponseWriter) error {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	early, err := buffered.Peek(buffered.Reader.Buffered())
	t.early = bytes.NewReader(bytes.Clone(early))
	t.Conn = conn
	t.setOpen()
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err == nil {
		_, err = t.Write([]byte(established))
	}
	t.out.Store(0) // do not count the 200 response
	if err != nil {
		_ = conn.Close() // the first error is the one to report
	}
	return err
}
