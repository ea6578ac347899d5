package upstream_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/upstream"
)

func TestOtherRootsAreTakenUpWithoutLosingARequest(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		oldCertificate, oldRoots := peer.Certificate(t)
		newCertificate, newRoots := peer.Certificate(t)
		var shown atomic.Pointer[tls.Certificate]
		shown.Store(oldCertificate)
		arrived, goOn := make(chan bool), make(chan bool)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				w.WriteHeader(200)
				_ = http.NewResponseController(w).Flush()
				arrived <- true
				<-goOn
			}
			io.WriteString(w, "whole")
		}))
		s.EnableHTTP2 = http2
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			c := &tls.Config{Certificates: []tls.Certificate{*shown.Load()}}
			if http2 {
				c.NextProtos = []string{"h2"}
			}
			return c, nil
		}}
		s.StartTLS()
		c := upstream.New(upstream.Options{Roots: oldRoots, MaxConnections: 128})
		get := func(path string) (*http.Response, error) {
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.RoundTrip(req)
		}
		whole := func(res *http.Response, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || string(got) != "whole" {
				t.Errorf("%q, %v", got, err)
			}
		}
		whole(get("/"))
		var inFlight *http.Response
		inFlightErr := make(chan error, 1)
		go func() {
			var err error
			inFlight, err = get("/slow")
			inFlightErr <- err
		}()
		<-arrived
		shown.Store(newCertificate)
		c.Trust(newRoots)
		whole(get("/")) // on a new connection
		goOn <- true
		err := <-inFlightErr
		whole(inFlight, err) // on the old connection
		c.Trust(oldRoots)    // which no longer verify the server
		if _, err := get("/"); upstream.Explain(err).Code != event.UpstreamTLS {
			t.Errorf("HTTP/2 %v: %v", http2, err)
		}
		c.CloseIdleConnections()
		s.Close()
	}
}
