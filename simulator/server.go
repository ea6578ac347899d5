package simulator

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Certificate is what is wrong with the certificate that the API presents.
type Certificate string

// The certificates.
const (
	CertificateGood      Certificate = ""           // nothing
	CertificateExpired   Certificate = "expired"    // it expired a month ago
	CertificateOtherHost Certificate = "other-host" // it names another host
)

// Server is a simulator that listens on loopback.
type Server struct {
	*Simulator
	// URL is the API's, over TLS; BlobURL and ControlURL are plain HTTP.
	URL, BlobURL, ControlURL string
	// CA is the authority that the API's certificate is from, in PEM form;
	// Roots holds it alone.
	CA    []byte
	Roots *x509.CertPool

	cancel  context.CancelFunc
	servers []*http.Server
	running sync.WaitGroup // serving loops, connections and handlers

	lifecycle sync.Mutex
	closed    bool // nothing is added to running any more
	conns     map[net.Conn]bool
}

// maxHeader bounds a request's header, in bytes, and with it what is remembered
// of a request.
const maxHeader = 256 << 10

// Start serves a simulator: the API over TLS, by HTTP/2 and HTTP/1.1, with a certificate
// of a new authority; the object store and the control API over plain HTTP. All listen
// on loopback, at free ports unless Options.Address is set.
func Start(o Options) (*Server, error) {
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	leaf, err := ca.leaf(o.Certificate)
	if err != nil {
		return nil, err
	}
	listeners, err := listen(o.withDefaults().Address, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{CA: ca.pem, Roots: x509.NewCertPool(), conns: map[net.Conn]bool{}}
	s.Roots.AddCert(ca.cert)
	s.URL = "https://" + listeners[0].Addr().String()
	s.BlobURL = "http://" + listeners[1].Addr().String()
	s.ControlURL = "http://" + listeners[2].Addr().String()
	o.BlobURL = s.BlobURL
	s.Simulator = New(o)

	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	api := s.server(ctx, s.API())
	api.TLSConfig = &tls.Config{Certificates: []tls.Certificate{leaf}, MinVersion: tls.VersionTLS12}
	api.Protocols = new(http.Protocols)
	api.Protocols.SetHTTP1(true)
	api.Protocols.SetHTTP2(!o.HTTP1Only)
	blobs, control := s.server(ctx, s.Blobs()), s.server(ctx, s.Control())
	s.running.Go(func() { _ = api.ServeTLS(listeners[0], "", "") }) // ends with ErrServerClosed, as the others
	s.running.Go(func() { _ = blobs.Serve(listeners[1]) })
	s.running.Go(func() { _ = control.Serve(listeners[2]) })
	return s, nil
}

// listen opens all addresses or none.
func listen(addresses ...string) ([]net.Listener, error) {
	var open []net.Listener
	for _, a := range addresses {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", a)
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("listening for the simulator at %s: %w", a, err)
		}
		open = append(open, l)
	}
	return open, nil
}

// server returns one around h of which Close can wait for everything.
func (s *Server) server(ctx context.Context, h http.Handler) *http.Server {
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !s.trackHandler() {
				panic(http.ErrAbortHandler)
			}
			defer s.running.Done()
			h.ServeHTTP(w, r)
		}),
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 30 * time.Second,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       contextWithConn,
		ConnState:         s.trackConn,
	}
	s.servers = append(s.servers, srv)
	return srv
}

// trackHandler counts a handler in, unless Close has begun to wait: an HTTP/2
// connection may start one as it is closed.
func (s *Server) trackHandler() bool {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

// trackConn keeps the open connections, and closes one that was accepted while
// everything was being closed, which http.Server would forget.
func (s *Server) trackConn(c net.Conn, state http.ConnState) {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	switch state {
	case http.StateNew:
		if s.closed {
			_ = c.Close() // nobody asks
			return
		}
		s.running.Add(1)
		s.conns[c] = true
	case http.StateClosed, http.StateHijacked:
		if s.conns[c] {
			delete(s.conns, c)
			s.running.Done()
		}
	case http.StateActive, http.StateIdle:
	}
}

// DropConnections resets every connection there is, idle or not, as a load
// balancer that restarts does. New ones are accepted.
func (s *Server) DropConnections() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	for c := range s.conns {
		reset(c)
	}
}

// Close stops serving at once, and waits until nothing runs any more.
func (s *Server) Close() error {
	s.lifecycle.Lock()
	s.closed = true
	s.lifecycle.Unlock()
	s.cancel() // ends what waits for its client
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.Close())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// authority is a certificate authority that lives as long as the process.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the simulator's CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Mimecast simulator CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the simulator's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the simulator's CA: %w", err)
	}
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func (a *authority) leaf(flaw Certificate) (leaf tls.Certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf, fmt.Errorf("making the simulator's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Mimecast simulator"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	switch flaw {
	case CertificateGood:
	case CertificateExpired:
		template.NotBefore, template.NotAfter = time.Now().AddDate(0, -2, 0), time.Now().AddDate(0, -1, 0)
	case CertificateOtherHost:
		template.DNSNames, template.IPAddresses = []string{"other.example"}, nil
	default:
		return leaf, fmt.Errorf("the simulator knows no certificate %q", flaw)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return leaf, fmt.Errorf("making the simulator's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
