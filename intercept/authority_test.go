package intercept

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
)

func newTestAuthority(t *testing.T, names ...string) *Authority {
	t.Helper()
	a, err := NewAuthority(names)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLeavesAreForPermittedNamesOnly(t *testing.T) {
	a := newTestAuthority(t, append(mimecast.APIHosts(), "127.0.0.1")...)
	for name, permitted := range map[string]bool{
		host: true, "EU-API.mimecast.com.": true, "api.services.mimecast.com": true, "x.eu-api.mimecast.com": true, "127.0.0.1": true,
		"mimecast.com": false, "login.mimecast.com": false, "xeu-api.mimecast.com": false, "eu-api.mimecast.com.evil.test": false,
		"evil.test": false, "127.0.0.2": false, "::1": false, "": false, ".": false, "*.mimecast.com": false, "*.eu-api.mimecast.com": false,
		"eu-api.mimecast.com\x00.evil.test": false, "eu-api.mimecast.com..": false, "e\u212a-api.mimecast.com": false,
	} {
		leaf, err := a.Certificate(name)
		if (err == nil) != permitted {
			t.Errorf("%q: %v", name, err)
		}
		if err != nil {
			continue
		}
		if err := verify(a, leaf, strings.TrimSuffix(name, ".")); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if life := time.Until(leaf.Leaf.NotAfter); life > leafLifetime || leaf.Leaf.IsCA {
			t.Errorf("%q: valid for %v, CA %t", name, life, leaf.Leaf.IsCA)
		}
	}
}

func TestNamesOfAnAuthority(t *testing.T) {
	for _, names := range [][]string{nil, {"127.0.0.1"}, {host, ""}, {host, "*.example"}, {host, "a b"}} {
		if _, err := NewAuthority(names); err == nil {
			t.Errorf("%q: no error", names)
		}
	}
	a := newTestAuthority(t, "b.example", "A.example", "b.example.", "::1", "::0001")
	for _, ca := range []*x509.Certificate{a.root, a.issuer} {
		if got := fmt.Sprint(ca.PermittedDNSDomains, ca.PermittedIPRanges); got != "[a.example b.example] [::1/128]" {
			t.Error(got)
		}
		critical := slices.ContainsFunc(ca.Extensions, func(e pkix.Extension) bool { return e.Critical && e.Id.String() == "2.5.29.30" })
		if !critical || !ca.IsCA || ca.MaxPathLenZero != (ca == a.issuer) {
			t.Errorf("%s: constraint critical %t, path length %d", ca.Subject, critical, ca.MaxPathLen)
		}
	}
}

// forge signs a certificate for any name, as an attacker with the stolen key could.
func forge(t *testing.T, a *Authority, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	der, err := a.sign(template, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.issuer.Raw}, PrivateKey: key}
}

// serveCertificate starts a TLS server with a certificate, and returns its address.
func serveCertificate(t *testing.T, certificate tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.Config.ErrorLog = discardLog()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// verifiers are clients that connect to an address, and verify the certificate for a name. They
// trust only the CA in a file. Each returns the client's output.
var verifiers = map[string]func(t *testing.T, ca, address, name string) (string, error){
	"java": verifyByJava,
	"openssl": func(t *testing.T, ca, address, name string) (string, error) {
		return run(t, nil, "openssl", "s_client", "-connect", address, "-servername", name, "-verify_hostname", name, "-CAfile", ca, "-verify_return_error", "-brief")
	},
	"curl": func(t *testing.T, ca, address, name string) (string, error) {
		_, port, _ := net.SplitHostPort(address)
		return run(t, nil, "curl", "-sS", "--noproxy", "*", "--cacert", ca, "--resolve", name+":"+port+":127.0.0.1", "https://"+name+":"+port+"/")
	},
	"node": func(t *testing.T, ca, address, name string) (string, error) {
		_, port, _ := net.SplitHostPort(address)
		return run(t, []string{"NODE_EXTRA_CA_CERTS=" + ca}, "node", "-e", `require("https").get({host: "127.0.0.1", port: `+port+`, servername: "`+name+`", headers: {host: "`+name+`"}}, r => r.resume()).on("error", e => { console.log(e.code, e.message); process.exit(1) })`)
	},
	"python3": func(t *testing.T, ca, address, name string) (string, error) {
		_, port, _ := net.SplitHostPort(address)
		return run(t, nil, "python3", "-c", `import socket, ssl; ssl.create_default_context(cafile="`+ca+`").wrap_socket(socket.create_connection(("127.0.0.1", `+port+`)), server_hostname="`+name+`")`)
	},
}

// javaClient is a Java program that prints why a TLS handshake failed.
const javaClient = `import javax.net.ssl.*; import java.net.*; import java.util.*;
public class Client { public static void main(String[] a) throws Exception {
	int port = Integer.parseInt(a[0]);
	SSLSocket s = (SSLSocket) ((SSLSocketFactory) SSLSocketFactory.getDefault()).createSocket(new Socket("127.0.0.1", port), a[1], port, true);
	SSLParameters p = s.getSSLParameters();
	p.setEndpointIdentificationAlgorithm("HTTPS");
	p.setServerNames(List.of(new SNIHostName(a[1])));
	s.setSSLParameters(p);
	try { s.startHandshake(); } catch (SSLException e) { System.out.println(e); System.exit(1); }
} }`

func verifyByJava(t *testing.T, ca, address, name string) (string, error) {
	if testing.Short() {
		t.Skip("starts two virtual machines")
	}
	dir := t.TempDir()
	source, store := filepath.Join(dir, "Client.java"), filepath.Join(dir, "store")
	if err := os.WriteFile(source, []byte(javaClient), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := run(t, nil, "keytool", "-importcert", "-noprompt", "-keystore", store, "-storepass", "changeit", "-file", ca); err != nil {
		t.Skip(said, err)
	}
	_, port, _ := net.SplitHostPort(address)
	return run(t, nil, "java", "-Djavax.net.ssl.trustStore="+store, "-Djavax.net.ssl.trustStorePassword=changeit", source, port, name)
}

func run(t *testing.T, environ []string, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestForgedLeavesAreRejected(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	a := newTestAuthority(t, mimecast.APIHosts()...)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, a.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	good, err := a.Certificate(host)
	if err != nil {
		t.Fatal(err)
	}
	const name = "login.mimecast.com" // not covered by the authority
	for program, verify := range verifiers {
		t.Run(program, func(t *testing.T) {
			if said, err := verify(t, ca, serveCertificate(t, *good), host); err != nil {
				t.Fatalf("a good certificate: %v\n%s", err, said)
			}
			forged := forge(t, a, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
			if said, err := verify(t, ca, serveCertificate(t, forged), name); err == nil || !strings.Contains(said, "permitted subtree violation") && !strings.Contains(said, "name constraints") {
				t.Errorf("a forged certificate: %v\n%s", err, said)
			}
		})
	}
}

func TestForgedCertificatesOfEveryFormAreRejected(t *testing.T) {
	a := newTestAuthority(t, mimecast.APIHosts()...)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, a.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := filepath.Join(t.TempDir(), "issuer.pem")
	if err := os.WriteFile(issuer, encodeCertificate(a.issuer.Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	_, noOpenSSL := exec.LookPath("openssl")
	for form, template := range map[string]*x509.Certificate{
		"name":          {DNSNames: []string{"evil.test"}},
		"wildcard":      {DNSNames: []string{"*.test"}},
		"parent":        {DNSNames: []string{"mimecast.com"}},
		"one of two":    {DNSNames: []string{host, "evil.test"}},
		"address":       {IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"IPv6 address":  {IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}},
		"name, address": {DNSNames: []string{host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"common name":   {Subject: pkix.Name{CommonName: "evil.test"}},
	} {
		forged := forge(t, a, template)
		leaf, err := x509.ParseCertificate(forged.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if form != "common name" && verify(a, &forged, "") == nil { // Go ignores common names
			t.Errorf("%s: Go accepts it", form)
		}
		if noOpenSSL != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), "leaf.pem")
		if err := os.WriteFile(file, encodeCertificate(leaf.Raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := run(t, nil, "openssl", "verify", "-CAfile", ca, "-untrusted", issuer, file); err == nil || !strings.Contains(said, "subtree violation") {
			t.Errorf("%s: openssl: %v\n%s", form, err, said)
		}
	}
}

func TestNoFurtherAuthorityCanBeMade(t *testing.T) {
	a := newTestAuthority(t, mimecast.APIHosts()...)
	second := forge(t, a, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "second"}})
	parent, err := x509.ParseCertificate(second.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	permitted, err := newConstraint(mimecast.APIHosts())
	if err != nil {
		t.Fatal(err)
	}
	below := newAuthority(&chain{second.PrivateKey.(*ecdsa.PrivateKey), parent, a.root}, permitted)
	leaf, err := below.Certificate(host)
	if err != nil {
		t.Fatal(err)
	}
	between := x509.NewCertPool()
	between.AddCert(parent)
	between.AddCert(a.issuer)
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool(a), Intermediates: between}); err == nil {
		t.Error("an authority made by the authority is accepted")
	}
}

func TestNoPrinterShowsTheKey(t *testing.T) {
	permitted, err := newConstraint([]string{host})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newChain(permitted, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(c, permitted)
	if _, err := a.Certificate(host); err != nil {
		t.Fatal(err)
	}
	raw, err := c.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d"} {
		for _, v := range []any{a, New(Options{Authority: a}), Options{Authority: a}} {
			fmt.Fprintf(&out, verb, v)
		}
	}
	text, err := json.Marshal(struct{ Authority any }{a})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	out.Write(a.PEM())
	out.Write(a.Bundle())
	for _, form := range []string{"%x", "%X", "%d", "%v"} {
		if secret := strings.Trim(fmt.Sprintf(form, raw), "[]"); strings.Contains(out.String(), secret) {
			t.Errorf("the key was printed as %s", form)
		}
	}
	if d := c.key.D.String(); strings.Contains(out.String(), d) { //nolint:staticcheck // fmt would print this
		t.Error("the key was printed as a number")
	}
}

func TestLeavesAreKeptRenewedAndBounded(t *testing.T) {
	a := newTestAuthority(t, "example")
	now := time.Now()
	a.now = func() time.Time { return now }
	serial := func(name string) string {
		leaf, err := a.Certificate(name)
		if err != nil {
			t.Fatal(err)
		}
		return leaf.Leaf.SerialNumber.String()
	}
	first := serial("a.example")
	if serial("A.example.") != first {
		t.Error("the same name got another certificate")
	}
	now = now.Add(leafLifetime/2 + time.Second)
	if serial("a.example") == first {
		t.Error("the certificate was not renewed at half of its life")
	}
	first = serial("a.example")
	for i := range maxLeaves {
		serial(fmt.Sprintf("%d.b.example", i))
		serial("a.example")
	}
	if got := len(a.leaves.recent); got != maxLeaves || serial("a.example") != first {
		t.Errorf("%d certificates are kept, and the last used is not among them", got)
	}
	now = a.root.NotAfter.Add(-time.Hour)
	if leaf, err := a.Certificate("late.example"); err != nil || leaf.Leaf.NotAfter.After(a.root.NotAfter) {
		t.Error("a certificate outlives the authority", err)
	}
	now = now.Add(2 * time.Hour)
	if _, err := a.Certificate("late.example"); err == nil {
		t.Error("an expired authority issues certificates")
	}
}

func TestConcurrentCallsShareACertificate(t *testing.T) {
	a := newTestAuthority(t, "example")
	var mu sync.Mutex
	serials := map[string]bool{}
	var running sync.WaitGroup
	for range 50 {
		running.Go(func() {
			leaf, err := a.Certificate("a.example")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			serials[leaf.Leaf.SerialNumber.String()] = true
		})
	}
	running.Wait()
	if len(serials) != 1 {
		t.Errorf("%d certificates", len(serials))
	}
}

func TestTLSConfigServesByServerName(t *testing.T) {
	a := newTestAuthority(t, "proxy.example", "127.0.0.1")
	l, err := tls.Listen("tcp", "127.0.0.1:0", a.TLSConfig("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }), ErrorLog: discardLog()}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { s.Close(); <-served }()
	for name, want := range map[string]string{"": "HTTP/2.0", "proxy.example": "HTTP/2.0", "a.proxy.example": "HTTP/2.0", "evil.test": ""} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(a), ServerName: name}, ForceAttemptHTTP2: true}
		res, err := (&http.Client{Transport: tr}).Get("https://" + l.Addr().String())
		got := ""
		if err == nil {
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			got = string(body)
		}
		if got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
		tr.CloseIdleConnections()
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool(a), MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

func TestBundleHasCertificatesAlone(t *testing.T) {
	a, b := newTestAuthority(t, "a.example"), newTestAuthority(t, "b.example")
	roots := append([]byte("# a comment\n"), b.PEM()...)
	roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: keyPEM, Bytes: []byte("marked")})...)
	got := string(a.Bundle(roots, []byte("no PEM"), b.PEM()))
	if want := string(b.PEM()) + string(b.PEM()) + string(a.PEM()); got != want {
		t.Error(got)
	}
}

func TestSystemRoots(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "b.pem")
	if err := os.WriteFile(name, []byte("roots"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := firstFile([]string{filepath.Join(dir, "a.pem"), name}); err != nil || string(got) != "roots" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := firstFile([]string{filepath.Join(dir, "a.pem")}); err == nil || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Error(err)
	}
	if _, err := firstFile([]string{dir}); err == nil {
		t.Error("a directory was read")
	}
}
