package config

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"strings"
	"sync/atomic"
)

// KeyPair is a certificate with its key, from two files. A [Watcher] replaces it once both
// files fit together. The zero value has none.
type KeyPair struct {
	// state is a func, since every printer shows a func as an address at most.
	state func() *keyPairState
}

type keyPairState struct {
	current          atomic.Pointer[tls.Certificate]
	certificate, key []byte // the files' content as it was last read, for the Watcher alone
	mismatch         error
}

// IsZero reports whether no certificate is configured.
func (k KeyPair) IsZero() bool { return k.state == nil }

// Certificate returns the current certificate. It reads no file.
func (k KeyPair) Certificate() *tls.Certificate { return k.state().current.Load() }

// Mismatch returns why the files as they were last read are not in use; nil if they are.
// Call it from the Watcher's Changed.
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

// pair puts a certificate and a key into use that fit. One file changes before the other.
func (s *keyPairState) pair() {
	if s.certificate == nil || s.key == nil {
		return
	}
	pair, err := tls.X509KeyPair(s.certificate, s.key)
	if s.mismatch = err; err == nil {
		s.current.Store(&pair)
	}
}
