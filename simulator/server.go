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

// Certificate is the defect of the API's certificate; the zero value means none.
type Certificate string

// The defects of a certificate.
const (
	CertificateGood      Certificate = ""           // no defect
	CertificateExpired   Certificate = "expired"    // expired a month ago
	CertificateOtherHost Certificate = "other-host" // names another host
)

// Server is a simulator that listens on loopback. Create one with [Start].
type Server struct {
	*Simulator
	// URL is the base URL of the API, over TLS. BlobURL and ControlURL are plain HTTP.
	URL, BlobURL, ControlURL string
	// CA is the authority that issued the API's certificate, in PEM form. Roots contains
	// only that authority.
	CA    []byte
	Roots *x509.CertPool

	cancel  context.CancelFunc
	servers []*http.Server
	running sync.WaitGroup // serving loops, connections and handlers

	lifecycle sync.Mutex
	closed    bool // nothing may be added to running
	conns     map[net.Conn]bool
}

// maxHeader is the largest header of a request, in bytes. It also limits how much of a
// request is remembered.
const maxHeader = 256 << 10

// Start serves a simulator. The API uses TLS with HTTP/2 and HTTP/1.1, and a certificate
// of a new authority. The object store and the control API use plain HTTP. All listen on
// free loopback ports unless Options.Address sets the API's. Start fails if it cannot
// listen.
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
	s.running.Go(func() { _ = api.ServeTLS(listeners[0], "", "") }) // returns ErrServerClosed, as do the others
	s.running.Go(func() { _ = blobs.Serve(listeners[1]) })
	s.running.Go(func() { _ = control.Serve(listeners[2]) })
	return s, nil
}

// listen opens all addresses, or none if one fails.
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

// server returns a server of h whose handlers and connections Close can wait for.
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

// trackHandler registers a handler, unless Close has already begun: a closing HTTP/2
// connection may still start a handler.
func (s *Server) trackHandler() bool {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

// trackConn tracks the open connections. It closes a connection that was accepted during
// Close, because http.Server would not.
func (s *Server) trackConn(c net.Conn, state http.ConnState) {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	switch state {
	case http.StateNew:
		if s.closed {
			_ = c.Close() // it is unused, so the error does not matter
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

// DropConnections resets every connection, idle or not, as a restarting load balancer
// does. The server continues to accept new ones.
func (s *Server) DropConnections() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	for c := range s.conns {
		reset(c)
	}
}

// Close stops serving at once and waits until all handlers and connections have ended.
func (s *Server) Close() error {
	s.lifecycle.Lock()
	s.closed = true
	s.lifecycle.Unlock()
	s.cancel() // ends handlers that wait for their client
	var errs []error
	for _, srv := range s.servers {
		errs = append(errs, srv.Close())
	}
	s.running.Wait()
	return errors.Join(errs...)
}

// authority is a certificate authority that exists only in this process.
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
