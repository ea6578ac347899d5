package config_test

import (
	"encoding/asn1"
	"encoding/pem"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"mimecast-proxy/config"
)

// signedData returns the outer structure of a PKCS#7 file in DER form.
func signedData(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Type asn1.ObjectIdentifier
		Data int `asn1:"explicit,tag:0"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, 1})
	do(t, err)
	return der
}

func store(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Version int
		Safe    struct{ A, B int }
		MAC     struct{ A int }
	}{Version: 3})
	do(t, err)
	return der
}

func toUTF16(s string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

func TestOtherFormsOfAuthoritiesAreNamedWithTheCommand(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	good := certificate(srv)
	lines := strings.SplitAfter(good, "\n")
	broken := strings.Replace(good, lines[3], strings.ToUpper(lines[3]), 1)
	wrapped := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	for content, says := range map[string]string{
		"":                                  "is empty",
		"-----BEGIN CERTIFICATE-----":       "certificate, number 1, at line 1",
		"nothing":                           "has no certificate in it",
		wrapped("PRIVATE KEY", []byte("x")): "has no certificate in it",
		string(srv.Certificate().Raw):       "is in DER form, not PEM; accepted: a file with certificates in PEM form, for example from: openssl x509 -inform der",
		string(signedData(t)):               "is PKCS#7 in DER form, not PEM; accepted: a file with certificates in PEM form, for example from: openssl pkcs7 -inform der -print_certs",
		wrapped("PKCS7", signedData(t)):     "is PKCS#7, not PEM; accepted: a file with certificates in PEM form, for example from: openssl pkcs7 -print_certs",
		string(store(t)):                    "is PKCS#12, not PEM; accepted: a file with certificates in PEM form, for example from: openssl pkcs12",
		toUTF16(good):                       "is in UTF-16, not PEM; accepted: a file with certificates in PEM form, for example from: iconv -f UTF-16",
		wrapped("TRUSTED CERTIFICATE", srv.Certificate().Raw):   "TRUSTED CERTIFICATE",
		good + good[:len(good)/2]:                               "has a malformed certificate, number 2, at line " + strconv.Itoa(strings.Count(good, "\n")+1) + ": it is not complete",
		good + good[:len(good)/2] + "\n" + good:                 "number 2",
		"# mine\n" + good + wrapped("CERTIFICATE", []byte("x")): "number 2, at line " + strconv.Itoa(strings.Count(good, "\n")+2),
		strings.Replace(good, lines[2][:10], "!!!!!!!!!!", 1):   "its base64 is damaged",
		good + broken: "number 2",
	} {
		got := faults(t, environ("MIMECAST_CA_FILE="+write(t, content)))
		if len(got) != 1 || !strings.Contains(got[0], says) {
			t.Errorf("%.40q: %q", content, got)
		}
		if _, err := config.ParseAuthorities([]byte(content)); err == nil {
			t.Errorf("%.40q: no error", content)
		}
	}
}
