package config

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// maxAuthorities limits a file with certificates, in bytes. It is several times the
// size of a system's file.
const maxAuthorities = 16 << 20

// Authorities holds certificate authorities to trust. If they come from a file, a
// [Watcher] replaces them when the file changes. The zero value has none.
type Authorities struct {
	current *atomic.Pointer[[]*x509.Certificate] // nil: none
}

// Certificates returns the current certificates; nil if there are none. It reads no
// file. Do not change the slice.
func (a Authorities) Certificates() []*x509.Certificate {
	if a.current == nil {
		return nil
	}
	return *a.current.Load()
}

// ParseAuthorities parses certificates in PEM form (RFC 7468, section 5). The error
// names the format of a file that is not PEM, or the malformed certificate.
func ParseAuthorities(content []byte) (Authorities, error) {
	certificates, err := parseCertificates(content)
	if err != nil {
		return Authorities{}, err
	}
	a := Authorities{new(atomic.Pointer[[]*x509.Certificate])}
	a.current.Store(&certificates)
	return a, nil
}

// readAuthorities reads MIMECAST_CA_FILE.
func (p *parser) readAuthorities(path string) Authorities {
	const variable = "MIMECAST_CA_FILE"
	if path == "" {
		return Authorities{}
	}
	a := Authorities{new(atomic.Pointer[[]*x509.Certificate])}
	f, err := newFile(variable, path, maxAuthorities, func(content []byte) error {
		certificates, err := parseCertificates(content)
		if err == nil {
			a.current.Store(&certificates)
		}
		return err
	})
	if err != nil {
		accepted := "a file with certificates in PEM form"
		if c, ok := errors.AsType[wrongFormat](err); ok {
			accepted += ", for example from: " + c.command
		}
		p.addError(variable, quoted(path)+" "+err.Error(), accepted)
		return Authorities{}
	}
	p.files = append(p.files, f)
	return a
}

// wrongFormat is a format other than PEM, and the command that converts it to PEM.
type wrongFormat struct{ format, command string }

func (c wrongFormat) Error() string { return "is " + c.format + ", not PEM" }

const beginPEM = "-----BEGIN "

func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	if isUTF16(content) {
		return nil, identifyFormat(content)
	}
	text := strings.TrimPrefix(string(content), byteOrderMark)
	before, blocks, _ := strings.Cut(text, beginPEM)
	line := 1 + strings.Count(before, "\n")
	var certificates []*x509.Certificate
	for block := range strings.SplitSeq(blocks, beginPEM) {
		switch kind, _, _ := strings.Cut(block, "-----"); kind {
		case "PKCS7", "CMS":
			return nil, wrongFormat{"PKCS#7", "openssl pkcs7 -print_certs -in FILE -out ca.pem"}
		case "TRUSTED CERTIFICATE":
			return nil, wrongFormat{"an OpenSSL TRUSTED CERTIFICATE", "openssl x509 -in FILE -out ca.pem"}
		case "CERTIFICATE", "X509 CERTIFICATE":
			c, err := parseCertificate(beginPEM + block)
			if err != nil {
				return nil, fmt.Errorf("has a malformed certificate, number %d, at line %d: %w", len(certificates)+1, line, err)
			}
			certificates = append(certificates, c)
		}
		line += strings.Count(block, "\n")
	}
	if len(certificates) == 0 {
		return nil, identifyFormat(content)
	}
	return certificates, nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it is not complete, or its base64 is damaged")
	}
	return x509.ParseCertificate(block.Bytes)
}

// oidSignedData is the content type of PKCS#7 that holds certificates (RFC 2315,
// section 14).
var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

// identifyFormat returns an error that names the format of a file without PEM
// certificates.
func identifyFormat(content []byte) error {
	var outer struct {
		Type asn1.ObjectIdentifier
		Rest asn1.RawValue `asn1:"optional,explicit,tag:0"`
	}
	var store struct {
		Version int
		Rest    asn1.RawValue
	}
	switch {
	case len(content) == 0:
		return errors.New("is empty")
	case isUTF16(content):
		return wrongFormat{"in UTF-16", "iconv -f UTF-16 -t UTF-8 FILE > ca.pem"}
	case isDER(content):
		return wrongFormat{"in DER form", "openssl x509 -inform der -in FILE -out ca.pem"}
	case isASN1(content, &outer) && outer.Type.Equal(oidSignedData):
		return wrongFormat{"PKCS#7 in DER form", "openssl pkcs7 -inform der -print_certs -in FILE -out ca.pem"}
	case isASN1(content, &store) && store.Version == 3:
		return wrongFormat{"PKCS#12", "openssl pkcs12 -cacerts -nokeys -in FILE -out ca.pem"}
	case bytes.HasPrefix(content, []byte("\xfe\xed\xfe\xed")):
		return wrongFormat{"a Java keystore", "keytool -exportcert -rfc -keystore FILE -alias NAME"}
	}
	return errors.New("has no certificate in it")
}

func isDER(content []byte) bool {
	_, err := x509.ParseCertificates(content)
	return err == nil
}

// isASN1 reports whether content begins with an ASN.1 value of v's type.
func isASN1(content []byte, v any) bool {
	_, err := asn1.Unmarshal(content, v)
	return err == nil
}
