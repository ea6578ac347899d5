package peer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// TLS is a TLS server that lets a test control each connection.
type TLS struct {
	// URL is the base URL. Roots, and CA in PEM form, verify the server's certificate.
	URL   *url.URL
	Roots *x509.CertPool
	CA    []byte
	// Accepted is the number of accepted connections.
	Accepted atomic.Int64
}

// ServeTLS starts a server for the given ALPN protocols. A connection is closed when serve
// returns, or when the test ends.
func ServeTLS(t *testing.T, protocols []string, serve func(*tls.Conn)) *TLS {
	t.Helper()
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: protocols})
	if err != nil {
		t.Fatal(err)
	}
	s := &TLS{
		URL:   &url.URL{Scheme: "https", Host: l.Addr().String()},
		Roots: x509.NewCertPool(),
		CA:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate().Raw}),
	}
	s.Roots.AddCert(certificate.Certificate())
	var mu sync.Mutex
	var open []net.Conn
	closed := false
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.Accepted.Add(1)
			mu.Lock()
			open = append(open, c)
			if closed {
				c.(*tls.Conn).NetConn().Close()
			}
			mu.Unlock()
			running.Go(func() { defer c.Close(); serve(c.(*tls.Conn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		closed = true
		for _, c := range open {
			c.(*tls.Conn).NetConn().Close() // no close_notify, which may block
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}
