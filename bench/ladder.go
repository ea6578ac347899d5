package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/guard"
	"mimecast-proxy/proxy"
	"mimecast-proxy/quota"
	"mimecast-proxy/secret"
	"mimecast-proxy/token"
	"mimecast-proxy/upstream"
)

// The rungs of the ladder, from the minimal cost of any Go proxy to the whole proxy. The
// first three are built here from the project's packages. The fourth is the program with
// its access log off; the last is the program.
const (
	floor     = "floor"
	withToken = "+ token"
	withGuard = "+ guard"
	quiet     = "+ metrics"
)

// ladder lists the rungs in order, after the naive proxy.
var ladder = []string{naive, floor, withToken, withGuard, quiet, ours}

const rungsNote = "The floor is `ReverseProxy` over a tuned transport with a static token. " +
	"*+ token* adds the token source, its retry and the connections. *+ guard* adds the guard, header hygiene, kept bodies and quotas. " +
	"*+ metrics* is the proxy with `PROXY_LOG_LEVEL=warn`. *mimecast-proxy* adds the access log."

// runRung serves one of the first three rungs.
func runRung(ctx context.Context, listen, rung, dir string) error {
	h, err := rungHandler(ctx, rung, dir)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	return (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l)
}

func rungHandler(ctx context.Context, rung, dir string) (http.Handler, error) {
	target := &url.URL{Scheme: "https", Host: upstreamAddress}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	if rung == floor {
		return floorHandler(target, roots), nil
	}
	a := newAccount(ctx, target, roots)
	if rung == withGuard {
		return guardHandler(a)
	}
	next := reverseProxy(target, proxy.Authenticate(proxy.Trace{}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), a, "")))
	}), nil
}

// floorHandler does only what every proxy must do.
func floorHandler(target *url.URL, roots *x509.CertPool) http.Handler {
	h := reverseProxy(target, &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		MaxConnsPerHost: 128, MaxIdleConnsPerHost: 1024, DisableCompression: true, IdleConnTimeout: 90 * time.Second,
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: 256 << 10},
	})
	rewrite := h.Rewrite
	h.Rewrite = func(r *httputil.ProxyRequest) {
		rewrite(r)
		r.Out.Header.Set("Authorization", "Bearer fixed")
	}
	return h
}

func reverseProxy(target *url.URL, transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, BufferPool: &buffers{},
	}
}

// newAccount returns an account whose token is renewed until ctx ends.
func newAccount(ctx context.Context, target *url.URL, roots *x509.CertPool) *account.Account {
	connections := upstream.New(upstream.Options{Roots: roots, DialTimeout: 10 * time.Second, ResponseTimeout: 2 * time.Minute, IdleTimeout: 90 * time.Second, MaxConnections: 128})
	credential := func() secret.Text { return secret.New("bench") }
	source := &token.Source{Fetcher: &token.ClientCredentials{URL: target.String() + "/oauth/token", ID: credential, Secret: credential, Transport: connections}}
	go source.Run(ctx)
	return &account.Account{Name: account.Default, BaseURL: target, Tokens: tokens{source}, Transport: connections, TokenPath: "/oauth/token"}
}

func guardHandler(a *account.Account) (http.Handler, error) {
	g, err := guard.New(guard.Policy{Clients: []guard.Client{{Account: a}}, TokenStub: true, MaxRequests: 20_000})
	if err != nil {
		return nil, err
	}
	model := quota.New(quota.Options{})
	replay := proxy.Replay(8*mebibyte, proxy.NewBudget(64*mebibyte, nil))
	return g.Wrap(proxy.New(proxy.Options{Transport: replay(model.Wrap(proxy.Authenticate(proxy.Trace{})))})), nil
}

// tokens adapts a token source to package proxy.
type tokens struct{ source *token.Source }

func (t tokens) Token(ctx context.Context) (account.Token, error) { return t.source.Token(ctx) }

func (t tokens) Renew(ctx context.Context, rejected account.Token) (account.Token, error) {
	held, ok := rejected.(*token.Token)
	if !ok {
		return nil, fmt.Errorf("renewing a foreign token of type %T", rejected)
	}
	return t.source.Renew(ctx, held)
}

func (t tokens) Expire(expired account.Token) {
	if held, ok := expired.(*token.Token); ok {
		t.source.Expire(held)
	}
}

// buffers is a pool of buffers for copying responses.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return buf[:]
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }

// measureLadder compares the rungs at each load.
func (b *bench) measureLadder(ctx context.Context) error {
	s := b.report.section("ladder", "The ladder, upstream over HTTP/2", "Responses of 1 KiB. "+rungsNote)
	s.names = ladder
	return b.measureTogether(ctx, s, ladder)
}
