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

// TLS is a server that does with each connection what a test says, which no library
// would.
type TLS struct {
	// URL leads to it; Roots, and CA in PEM form, vouch for its certificate.
	URL   *url.URL
	Roots *x509.CertPool
	CA    []byte
	// Accepted counts the connections.
	Accepted atomic.Int64
}

// ServeTLS starts a server that speaks one of the protocols. A connection is closed
// when serve returns, and each that is left when the test ends.
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
			c.(*tls.Conn).NetConn().Close() // with no word more, which may block
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}
