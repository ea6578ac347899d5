package app

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"mimecast-proxy/intercept"
	"mimecast-proxy/internal/peer"
	"mimecast-proxy/mimecast"
)

// pemCertificate returns a new certificate, which no system trusts.
func pemCertificate(t *testing.T) []byte {
	t.Helper()
	pair, _ := peer.Certificate(t)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
}

func TestVariableThatNamesCertificatesKeepsThoseAlone(t *testing.T) {
	authority, err := intercept.NewAuthority(mimecast.APIHosts())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append([]string{nodeVariable}, bundleVariables...) {
		own := pemCertificate(t)
		file := filepath.Join(t.TempDir(), "own.pem")
		if err := os.WriteFile(file, own, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := newTrustFolder(authority, []string{name + "=" + file})
		if err != nil {
			t.Fatal(err)
		}
		environ := f.environ([]string{name + "=" + file}, "127.0.0.1:1", newPassword())
		for _, variable := range append([]string{nodeVariable}, bundleVariables...) {
			trusted, err := os.ReadFile(lookup(environ, variable))
			switch has := bytes.Contains(trusted, own); {
			case err != nil:
				t.Error(err)
			case variable == name && !bytes.Equal(trusted, append(own, authority.PEM()...)):
				t.Errorf("%s has %d bytes of certificates, not the user's and the CA alone", variable, len(trusted))
			case has != (variable == name || name == "SSL_CERT_FILE" && variable != nodeVariable):
				t.Errorf("%s has the certificates of %s: %t", variable, name, has)
			}
		}
		if err := f.remove(); err != nil {
			t.Error(err)
		}
	}
}
