package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// keyPair returns a certificate and its private key in PEM form.
func keyPair(t *testing.T, serial int64) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	do(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	do(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	do(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestListenersAndTheirCertificateComeTogether(t *testing.T) {
	certificate, key := keyPair(t, 1)
	_, otherKey := keyPair(t, 2)
	files := map[string]string{"CERT": write(t, certificate), "KEY": write(t, key), "OTHER": write(t, otherKey), "NONE": write(t, "nothing"),
		"LOCKED": write(t, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")}
	both := "PROXY_TLS_LISTEN=127.0.0.1:8443 PROXY_TLS_CERT_FILE=$CERT "
	for variables, says := range map[string]string{
		both + "PROXY_TLS_KEY_FILE=$KEY":                  "",
		both + "PROXY_TLS_KEY_FILE=$KEY PROXY_LISTEN=off": "",
		both:                                "PROXY_TLS_KEY_FILE: not set, but PROXY_TLS_CERT_FILE is",
		"PROXY_TLS_KEY_FILE=$KEY":           "PROXY_TLS_CERT_FILE: not set, but PROXY_TLS_KEY_FILE is",
		"PROXY_LISTEN=off":                  "PROXY_LISTEN: off, and PROXY_TLS_LISTEN is not set",
		both + "PROXY_TLS_KEY_FILE=$OTHER":  "does not match the certificate",
		both + "PROXY_TLS_KEY_FILE=$NONE":   "has no private key in PEM form",
		both + "PROXY_TLS_KEY_FILE=$LOCKED": "has a private key with a password",
		both + "PROXY_TLS_KEY_FILE=$KEY PROXY_LISTEN=127.0.0.1:8443":                                            "PROXY_TLS_LISTEN: \"127.0.0.1:8443\" overlaps",
		"PROXY_TLS_LISTEN=0.0.0.0:8443 PROXY_TLS_CERT_FILE=$CERT PROXY_TLS_KEY_FILE=$KEY":                       "PROXY_TLS_LISTEN: \"0.0.0.0:8443\" is open to other machines",
		"PROXY_TLS_LISTEN=127.0.0.1:9090 PROXY_TLS_CERT_FILE=$CERT PROXY_TLS_KEY_FILE=$KEY":                     "PROXY_ADMIN_LISTEN: ",
		"PROXY_TLS_LISTEN=127.0.0.1:8443 PROXY_TLS_CERT_FILE=$NONE PROXY_TLS_KEY_FILE=$KEY":                     "has no certificate in it",
		"PROXY_TLS_LISTEN=127.0.0.1:8443 PROXY_TLS_CERT_FILE=/nowhere PROXY_TLS_KEY_FILE=$KEY PROXY_LISTEN=off": "PROXY_TLS_CERT_FILE: \"/nowhere\" cannot be read",
	} {
		got := strings.Join(faults(t, environ(strings.Fields(os.Expand(variables, func(name string) string { return files[name] }))...)), "\n")
		if !strings.Contains(got, says) || (got == "") != (says == "") || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q", variables, got, says)
		}
	}
}

func TestKeyPairChangesOnceBothFilesFit(t *testing.T) {
	certificate, key := keyPair(t, 1)
	newCertificate, newKey := keyPair(t, 2)
	certFile, keyFile := write(t, certificate), write(t, key)
	watch(t, environ("PROXY_TLS_LISTEN=127.0.0.1:8443", "PROXY_TLS_CERT_FILE="+certFile, "PROXY_TLS_KEY_FILE="+keyFile), func(t *testing.T, w *watched) {
		for _, step := range []struct {
			path, content string
			serial        int64
			mismatch      bool
		}{{certFile, newCertificate, 1, true}, {keyFile, newKey, 2, false}, {keyFile, "", 2, false}, {keyFile, key, 2, true}, {certFile, certificate, 1, false}} {
			put(t, step.path, step.content)
			round()
			if got := w.cfg.TLS.Certificate().Leaf.SerialNumber.Int64(); got != step.serial || (w.cfg.TLS.Mismatch() != nil) != step.mismatch {
				t.Errorf("%.40q: certificate %d, mismatch %v", step.content, got, w.cfg.TLS.Mismatch())
			}
		}
		if text := fmt.Sprintf("%+v %#v", w.cfg, w.cfg.TLS); strings.Contains(text, "PRIVATE KEY") {
			t.Error("the configuration prints the key")
		}
	})
}
