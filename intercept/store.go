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
	"runtime"
	"time"
)

// The files of a stored authority. The key's file has the certificate too, so that no crash
// and no second process can leave a key with another's certificate.
const (
	keyFile         = "ca-key.pem"
	certificateFile = "ca.pem"
	bundleFile      = "bundle.pem"
	keyPEM          = "PRIVATE KEY"
)

const (
	privateMode = 0o600
	publicMode  = 0o644
	directory   = 0o700
)

// LoadAuthority returns the authority that dir keeps, for the names of [NewAuthority]. If
// there is none, or it ends within 90 days, or is for other names, it makes a new one, which
// clients have to be given. It writes ca.pem for clients that add it to their own roots, and
// bundle.pem for those that take one file: the certificates of roots, or of the system if
// there are none, and the authority's. Without either there is no bundle.pem.
//
// It returns an error if others than the owner may read the key.
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

// loadOrMake reads the authority, and makes one if it cannot be used further.
func loadOrMake(path string, permitted constraint, now time.Time) (*Authority, error) {
	key, certificate, err := readCA(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	if !missing && permitted.equal(certificate) && now.Add(caRenewal).Before(certificate.NotAfter) {
		return newAuthority(key, certificate, permitted), nil
	}
	if key, certificate, err = newCA(permitted, now); err != nil {
		return nil, err
	}
	text, err := encodeCA(key, certificate)
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
	return newAuthority(key, certificate, permitted), nil
}

// linkNew gives a file another name, and fails if that exists: another process was faster.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		return os.Rename(from, to)
	}
	return err
}

// readCA reads a key and its certificate.
func readCA(path string) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" { // which has no such modes
		return nil, nil, fmt.Errorf("%s has mode %04o: others can read the key. Run chmod 600, or delete the file for a new CA", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return nil, nil, err
	}
	key, certificate, err := decodeCA(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is not a key that the proxy made: %w. Delete the file for a new CA", path, err)
	}
	return key, certificate, nil
}

func encodeCA(key *ecdsa.PrivateKey, certificate *x509.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: keyPEM, Bytes: der}), encodeCertificate(certificate.Raw)...), nil
}

// decodeCA reads what encodeCA wrote. Its errors contain nothing of the text.
func decodeCA(text []byte) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil || first.Type != keyPEM || second.Type != certificatePEM {
		return nil, nil, errors.New("it is not a private key and a certificate")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(first.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, nil, errors.New("the private key is malformed")
	}
	certificate, err := x509.ParseCertificate(second.Bytes)
	if err != nil || !key.PublicKey.Equal(certificate.PublicKey) || certificate.Subject.CommonName != caName {
		return nil, nil, errors.New("the certificate is malformed or another's")
	}
	return key, certificate, nil
}

// publish writes what clients read.
func (a *Authority) publish(dir string, roots [][]byte) error {
	if err := replaceFile(filepath.Join(dir, certificateFile), a.PEM()); err != nil {
		return err
	}
	bundle := filepath.Join(dir, bundleFile)
	if len(roots) == 0 {
		system, err := SystemRootsPEM()
		if err != nil { // a bundle of an earlier authority must not stay
			if err := os.Remove(bundle); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		roots = [][]byte{system}
	}
	return replaceFile(bundle, a.Bundle(roots...))
}

// replaceFile writes a file that everybody may read, unless it has the text already.
func replaceFile(path string, text []byte) error {
	if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, text) {
		return nil
	}
	return writeFile(path, text, publicMode, os.Rename)
}

// writeFile writes a file so that nobody can read a part of it: under another name, from
// which place moves it.
func writeFile(path string, text []byte, mode fs.FileMode, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // is gone if it was renamed
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return place(f.Name(), path)
}
