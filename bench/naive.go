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

// runNaive runs the simplest proxy: NewSingleHostReverseProxy over oauth2.Transport, with
// all defaults. It trusts the certificates in SSL_CERT_FILE.
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
