package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"testing"

	"mimecast-proxy/account"
	"mimecast-proxy/guard"
	"mimecast-proxy/intercept"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/secret"
)

// newClient returns a guard.Client with keys and its own account.
func newClient(name string, keys ...string) guard.Client {
	c := guard.Client{Name: name, Account: &account.Account{Name: "account of " + name}}
	for _, key := range keys {
		c.Keys = append(c.Keys, secret.New(key))
	}
	return c
}

func TestRequestsInATunnelAreThoseOfItsClient(t *testing.T) {
	g, err := guard.New(guard.Policy{Tunnel: tunnelAuthorization, Clients: []guard.Client{newClient("a", "key-a"), newClient("b", "key-b")}})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := intercept.NewAuthority(mimecast.APIHosts())
	if err != nil {
		t.Fatal(err)
	}
	p := intercept.New(intercept.Options{Authority: authority, Authorize: g.AllowsTunnel, Handler: g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s of %s", account.ClientOf(r), account.Of(r.Context()).Name)
	}))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() { p.Close(); <-served })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM())
	for _, h2 := range []bool{false, true} {
		// set replaces the clients. call sends a request in the tunnel that a key opened.
		set := func(clients ...guard.Client) {
			t.Helper()
			if err := g.SetClients(clients); err != nil {
				t.Fatal(err)
			}
		}
		tunnels := make(map[string]*http.Transport)
		call := func(key string, reused bool) string {
			t.Helper()
			transport := tunnels[key]
			if transport == nil {
				via := &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("b", key)}
				transport = &http.Transport{Proxy: http.ProxyURL(via), ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots}}
				t.Cleanup(transport.CloseIdleConnections)
				tunnels[key] = transport
			}
			old := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { old = c.Reused }})
			req, err := http.NewRequestWithContext(ctx, "GET", "https://"+mimecast.APIHosts()[0]+"/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer key-b") // must be ignored in favor of the tunnel's key
			res, err := transport.RoundTrip(req)
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || old != reused {
				t.Errorf("%v; in a tunnel that was there: %t, want %t", err, old, reused)
			}
			if res.StatusCode != 200 {
				return res.Status
			}
			return string(body)
		}
		expect := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("HTTP/2 %t: %s, want %s", h2, got, want)
			}
		}
		set(newClient("a", "key-a"), newClient("b", "key-b"))
		expect(call("key-a", false), "a of account of a")
		expect(call("key-b", false), "b of account of b")
		expect(call("key-x", false), "Proxy Authentication Required")
		set(newClient("a", "key-a", "next-a"), newClient("b", "key-b")) // both keys of a are valid
		expect(call("key-a", true), "a of account of a")
		expect(call("next-a", false), "a of account of a")
		set(newClient("a", "next-a"), newClient("c", "key-b")) // key-b now belongs to c
		expect(call("key-a", true), "407 Proxy Authentication Required")
		expect(call("next-a", true), "a of account of a")
		expect(call("key-b", true), "c of account of c")
	}
}
