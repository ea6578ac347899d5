package intercept

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files of a stored authority. The key file also contains the certificates. Neither a crash
// nor a second process can therefore leave a key and a certificate that do not match.
const (
	keyFile         = "ca-key.pem"
	certificateFile = "ca.pem"
	bundleFile      = "bundle.pem"
	keyPEM          = "PRIVATE KEY"
	maxKeyFile      = 64 << 10
)

const (
	privateMode = 0o600
	publicMode  = 0o644
	directory   = 0o700
)

// LoadAuthority returns the authority stored in dir, with names as in [NewAuthority]. If there
// is none, or it expires within 90 days, or it is for other names, LoadAuthority creates a new
// one. Clients then need the new certificate: see [Authority.Renewed].
//
// It writes ca.pem for clients that add a CA to their own roots. For clients that accept a
// single file, it writes bundle.pem, with the certificates in roots and the authority's. If
// roots is empty, it takes the system's. If no file with those is known, it writes no
// bundle.pem.
//
// It returns an error if the key file belongs to another user or is accessible to others.
func LoadAuthority(dir string, names []string, roots ...[]byte) (*Authority, error) {
	permitted, err := newConstraint(names)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, directory); err != nil {
		return nil, fmt.Errorf("making the interception CA's directory: %w", err)
	}
	a, err := loadOrMake(filepath.Join(dir, keyFile), permitted, time.Now())
	if err != nil {
		return nil, fmt.Errorf("the interception CA: %w", err)
	}
	return a, a.publish(dir, roots)
}

// loadOrMake reads the stored authority. If there is none or it must be replaced, it creates
// one.
func loadOrMake(path string, permitted constraint, now time.Time) (*Authority, error) {
	c, err := readChain(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	renewed := ""
	if !missing {
		if renewed = c.unusable(permitted, now); renewed == "" {
			return newAuthority(c, permitted), nil
		}
	}
	if c, err = newChain(permitted, now); err != nil {
		return nil, err
	}
	text, err := c.encode()
	if err != nil {
		return nil, err
	}
	place := os.Rename
	if missing {
		place = linkNew
	}
	err = writeFile(path, text, privateMode, place)
	if missing && errors.Is(err, fs.ErrExist) {
		return loadOrMake(path, permitted, now)
	}
	if err != nil {
		return nil, err
	}
	a := newAuthority(c, permitted)
	a.renewed = renewed
	return a, nil
}

// unusable returns why a stored authority must be replaced; empty: it can be used.
func (c *chain) unusable(permitted constraint, now time.Time) string {
	switch {
	case !permitted.equal(c.root) || !permitted.equal(c.issuer):
		return "the names changed"
	case !now.Add(caRenewal).Before(c.root.NotAfter):
		return "it expires on " + c.root.NotAfter.UTC().Format(time.DateOnly) + " UTC"
	}
	return ""
}

// linkNew gives a file a new name. It fails with fs.ErrExist if another process created that
// name first.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrExist) { // the file system has no hard links
		return os.Rename(from, to)
	}
	return err
}

// readChain reads a stored authority. The error wraps fs.ErrNotExist if there is none.
func readChain(path string) (*chain, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	c, err := decodeChain(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not from the proxy: %w. Delete the file for a new CA", path, err)
	}
	return c, nil
}

// encode returns the key and the certificates in PEM form.
func (c *chain) encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: keyPEM, Bytes: der})
	return slices.Concat(text, encodeCertificate(c.issuer.Raw), encodeCertificate(c.root.Raw)), nil
}

// decodeChain parses the text that encode returned. Its errors contain no part of the text.
func decodeChain(text []byte) (*chain, error) {
	var blocks [3][]byte
	for i, want := range []string{keyPEM, certificatePEM, certificatePEM} {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || block.Type != want {
			return nil, errors.New("it is not a private key with two certificates")
		}
		blocks[i] = block.Bytes
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("the private key is malformed")
	}
	issuer, err := x509.ParseCertificate(blocks[1])
	if err != nil || !key.PublicKey.Equal(issuer.PublicKey) {
		return nil, errors.New("the certificate is malformed or another key's")
	}
	root, err := x509.ParseCertificate(blocks[2])
	if err != nil || issuer.CheckSignatureFrom(root) != nil || !strings.HasPrefix(root.Subject.CommonName, caName) {
		return nil, errors.New("the root certificate is malformed or another's")
	}
	return &chain{key, issuer, root}, nil
}

// publish writes ca.pem and bundle.pem for clients.
func (a *Authority) publish(dir string, roots [][]byte) error {
	if err := replaceFile(filepath.Join(dir, certificateFile), a.PEM()); err != nil {
		return err
	}
	bundle := filepath.Join(dir, bundleFile)
	if len(roots) == 0 {
		system, err := SystemRootsPEM()
		if err != nil { // remove the bundle of an earlier authority
			if err := os.Remove(bundle); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		roots = [][]byte{system}
	}
	return replaceFile(bundle, a.Bundle(roots...))
}

// replaceFile writes a file with mode 0644, unless it already has this content.
func replaceFile(path string, text []byte) error {
	if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, text) {
		return nil
	}
	return writeFile(path, text, publicMode, os.Rename)
}

// writeFile writes a file atomically: it writes a temporary file, and place moves that to
// path.
func writeFile(path string, text []byte, mode fs.FileMode, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // fails if place renamed it
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return place(f.Name(), path)
}
