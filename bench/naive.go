package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// runNaive is the proxy that one would write first: NewSingleHostReverseProxy
// over oauth2.Transport, with defaults for everything. It trusts what
// SSL_CERT_FILE names.
func runNaive(ctx context.Context, listen, upstream string) error {
	target, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	grant := &clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: upstream + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams}
	h := httputil.NewSingleHostReverseProxy(target)
	h.Transport = &oauth2.Transport{Source: grant.TokenSource(ctx)}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	return srv.Serve(l)
}
