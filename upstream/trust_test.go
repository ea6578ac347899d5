package upstream_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/upstream"
)

// authority returns a certificate for 127.0.0.1, and the roots that vouch for it.
func authority(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestOtherRootsAreTakenUpWithoutLosingARequest(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		oldCertificate, oldRoots := authority(t)
		newCertificate, newRoots := authority(t)
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
		whole(inFlight, err) // on the old one
		c.Trust(oldRoots)    // which vouch for the server no longer
		if _, err := get("/"); upstream.Explain(err).Code != event.UpstreamTLS {
			t.Errorf("HTTP/2 %v: %v", http2, err)
		}
		c.CloseIdleConnections()
		s.Close()
	}
}
