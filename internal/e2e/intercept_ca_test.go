//go:build unix

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// A client that calls an IP address sends no server name.
func TestTLSPortOfTheCAServesItsIPAddress(t *testing.T) {
	t.Parallel()
	p := program.Serve(t, program.Simulate(t, simulator.Options{}), "PROXY_TLS_LISTEN=127.0.0.1:0")
	_, certificate := p.AdminGet("/ca.pem")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(certificate)) {
		t.Fatalf("/ca.pem is %q", certificate)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}} //nolint:gosec // Go's default minimum is right
	defer transport.CloseIdleConnections()
	if status, code := get(t, &http.Client{Transport: transport}, "https://"+tlsPort(t, p)+"/identity/whoami", nil); status != 200 {
		t.Errorf("%d %s", status, code)
	}
}

func TestNewCADrawsOneWarning(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	dir := t.TempDir() + "/ca"
	const gateway = "PROXY_ALLOWED_HOSTS=gateway.example"
	for _, c := range []struct {
		name, more string
		warns      bool
	}{
		{"the first start", "", false},
		{"the same names", "", false},
		{"another name", gateway, true},
		{"that name again", gateway, false},
	} {
		p := program.Serve(t, sim, "PROXY_TLS_LISTEN=127.0.0.1:0", "PROXY_INTERCEPT_CA_DIR="+dir, c.more)
		p.Signal(syscall.SIGTERM)
		p.Exit()
		warned := 0
		for line := range strings.SplitSeq(p.Stderr.String(), "\n") {
			if !strings.Contains(line, "interception CA replaced") {
				continue
			}
			warned++
			if !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"folder":"`+dir+`"`) || !strings.Contains(line, `"reason":"the names changed"`) {
				t.Errorf("%s: %s", c.name, line)
			}
		}
		if want := map[bool]int{true: 1}[c.warns]; warned != want {
			t.Errorf("%s: %d warnings, want %d", c.name, warned, want)
		}
	}
}
