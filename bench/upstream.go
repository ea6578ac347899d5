package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// upstreamOptions configures the simulated Mimecast.
type upstreamOptions struct {
	Listen     string // for TLS; plain HTTP uses the next port
	CertFile   string
	KeyFile    string
	HTTP2      bool
	Quota      bool // whether responses state a quota that never runs out
	TokenTTL   time.Duration
	TokenDelay time.Duration
}

// chunk is repeated in each response body.
var chunk = []byte(strings.Repeat("0123456789abcde\n", 4096))

// runUpstream serves until ctx ends. It does very little per request, so that the
// measurements show the proxies. It accepts any bearer token and serves:
//
//	POST /oauth/token        with a token
//	GET  /bytes/N            with N bytes; ?wait=50ms delays the response
//	GET  /siem/v1/events/cg  with 1 KiB, as an endpoint that has a quota
//	POST /sink               with the number of bytes that it received
//	GET  /connections        with the number of TLS connections ever accepted
func runUpstream(ctx context.Context, o upstreamOptions) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth/token", o.token)
	mux.HandleFunc("GET /bytes/{n}", o.sendBytes)
	mux.HandleFunc("GET "+quotaPath, o.sendBytes)
	mux.HandleFunc("POST /sink", sink)
	var made atomic.Int64
	mux.HandleFunc("GET /connections", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, made.Load()) })
	secured, open := o.server(mux, o.HTTP2), o.server(mux, false)
	secured.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			made.Add(1)
		}
	}
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("the upstream's address: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("the upstream's port: %w", err)
	}
	secure, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("listening for the upstream: %w", err)
	}
	plain, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(n+1)))
	if err != nil {
		return fmt.Errorf("listening for the upstream: %w", err)
	}
	failed := make(chan error, 2)
	go func() { failed <- secured.ServeTLS(secure, o.CertFile, o.KeyFile) }()
	go func() { failed <- open.Serve(plain) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return errors.Join(secured.Close(), open.Close())
	}
}

func (o upstreamOptions) server(h http.Handler, http2 bool) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	return &http.Server{
		Handler: h, Protocols: &protocols, ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13},
		// Same HTTP/2 settings as Google's front end, which serves Mimecast's gateway.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 1 << 20},
	}
}

func (o upstreamOptions) token(w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(o.TokenDelay):
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":"bench-%d","token_type":"bearer","expires_in":%d}`, time.Now().UnixNano(), int(o.TokenTTL.Seconds()))
}

// quotaPath is the endpoint that states a quota.
const quotaPath = "/siem/v1/events/cg"

func (o upstreamOptions) sendBytes(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		http.Error(w, "no bearer token", http.StatusUnauthorized)
		return
	}
	n, err := int64(smallResponse), error(nil)
	if size := r.PathValue("n"); size != "" {
		n, err = strconv.ParseInt(size, 10, 64)
	}
	if err != nil || n < 0 {
		http.Error(w, "not a size", http.StatusBadRequest)
		return
	}
	if r.URL.RawQuery != "" {
		wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
		time.Sleep(wait)
	}
	if o.Quota {
		w.Header().Set("X-RateLimit-Limit", "1000000000")
		w.Header().Set("X-RateLimit-Remaining", "900000000")
		w.Header().Set("X-RateLimit-Reset", "900000")
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for n > 0 {
		k, err := w.Write(chunk[:min(n, int64(len(chunk)))])
		if err != nil {
			return // the client is gone
		}
		n -= int64(k)
	}
}

func sink(w http.ResponseWriter, r *http.Request) {
	buf := make([]byte, 64<<10)
	n, err := io.CopyBuffer(onlyWriter{io.Discard}, r.Body, buf)
	if err != nil {
		return
	}
	body := strconv.FormatInt(n, 10)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body)
}

// onlyWriter hides io.Discard's ReadFrom, which reads only 8 KiB at a time.
type onlyWriter struct{ io.Writer }
