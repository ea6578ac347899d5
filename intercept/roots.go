package intercept

import (
	"errors"
	"io/fs"
	"os"
)

// rootFiles are the systems' files of root certificates, in the order in which crypto/x509
// looks for them.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, the image
	"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/pki/tls/cacert.pem",                           // OpenELEC
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // CentOS, RHEL 7
	"/etc/ssl/cert.pem",                                 // Alpine, macOS
}

var errNoRoots = errors.New("this system keeps its root certificates in no known file: set SSL_CERT_FILE to a PEM file of them")

// SystemRootsPEM returns the system's root certificates in PEM form. If no known file has them,
// as on Windows, the error says which variable to set.
func SystemRootsPEM() ([]byte, error) { return firstFile(rootFiles) }

func firstFile(names []string) ([]byte, error) {
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			return text, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, errNoRoots
}
