package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxAuthorities is several times the size of the system's authorities, in
// bytes.
const maxAuthorities = 16 << 20

// authorities are the certificates in a file.
type authorities struct {
	path string
	pem  []byte
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *authorities) UnmarshalText(text []byte) error {
	a.path = string(text)
	content, err := readFile(a.path, maxAuthorities)
	if err != nil {
		return refuse("%v", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(content) {
		return refuse("has no certificate in it")
	}
	a.pem = content
	return nil
}

// readFile reads a file of at most limit bytes. The error says what is wrong
// with the file and has no path in it, since a path can hold line breaks.
//
// A pipe would block, and has nothing to read the second time.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cannot(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cannot(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, cannot(err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("is larger than %v", size(limit))
	}
	return content, nil
}

func cannot(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
