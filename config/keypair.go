package config

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"strings"
	"sync/atomic"
)

// KeyPair is a certificate and its private key, from two files. After a change, a
// [Watcher] replaces it once both files match. The zero value has no certificate.
type KeyPair struct {
	// state is a func, because printers show at most the address of a func.
	state func() *keyPairState
}

type keyPairState struct {
	current          atomic.Pointer[tls.Certificate]
	certificate, key []byte // last content of the files; only the Watcher uses it
	mismatch         error
}

// IsZero reports whether no certificate is configured.
func (k KeyPair) IsZero() bool { return k.state == nil }

// Certificate returns the current certificate. It reads no file. k must not be zero.
func (k KeyPair) Certificate() *tls.Certificate { return k.state().current.Load() }

// Mismatch returns why the last versions of the files are not in use; nil if they are.
// Call it only in [Watcher.Changed].
func (k KeyPair) Mismatch() error { return k.state().mismatch }

// readKeyPair reads PROXY_TLS_CERT_FILE and PROXY_TLS_KEY_FILE.
func (p *parser) readKeyPair(v variables) KeyPair {
	const certVariable, keyVariable = "PROXY_TLS_CERT_FILE", "PROXY_TLS_KEY_FILE"
	switch {
	case v.TLSCertFile == "" && v.TLSKeyFile == "":
		return KeyPair{}
	case v.TLSKeyFile == "":
		p.addError(keyVariable, "not set, but "+certVariable+" is", "the file with the certificate's key")
		return KeyPair{}
	case v.TLSCertFile == "":
		p.addError(certVariable, "not set, but "+keyVariable+" is", "the file with the key's certificate")
		return KeyPair{}
	}
	state := new(keyPairState)
	certificate, certErr := newFile(certVariable, v.TLSCertFile, maxAuthorities, state.useCertificate)
	key, keyErr := newFile(keyVariable, v.TLSKeyFile, maxSecret, state.useKey)
	if certErr != nil {
		p.addError(certVariable, quoted(v.TLSCertFile)+" "+certErr.Error(), "a PEM file with the certificate and all intermediate certificates")
	}
	if keyErr != nil {
		p.addError(keyVariable, quoted(v.TLSKeyFile)+" "+keyErr.Error(), "a PEM file with a private key, without a password")
	}
	if certErr == nil && keyErr == nil && state.mismatch != nil {
		p.addError(keyVariable, quoted(v.TLSKeyFile)+" does not match the certificate of "+certVariable, "the key of that certificate")
	}
	p.files = append(p.files, certificate, key)
	return KeyPair{func() *keyPairState { return state }}
}

func (s *keyPairState) useCertificate(content []byte) error {
	if _, err := parseCertificates(content); err != nil {
		return err
	}
	s.certificate = append([]byte(nil), content...)
	s.pair()
	return nil
}

func (s *keyPairState) useKey(content []byte) error {
	block, _ := pem.Decode(content)
	switch {
	case block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return errors.New("has no private key in PEM form")
	case strings.Contains(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return errors.New("has a private key with a password; remove it with: openssl pkey -in FILE -out key.pem")
	}
	s.key = append([]byte(nil), content...)
	s.pair()
	return nil
}

// pair puts the certificate and key into use if they match. The files change one after
// the other, so a mismatch may be temporary.
func (s *keyPairState) pair() {
	if s.certificate == nil || s.key == nil {
		return
	}
	pair, err := tls.X509KeyPair(s.certificate, s.key)
	if s.mismatch = err; err == nil {
		s.current.Store(&pair)
	}
}
