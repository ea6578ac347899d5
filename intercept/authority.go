package intercept

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// caName is the subject of every authority.
	caName = "Mimecast Proxy interception CA"
	// caLifetime is how long an authority is valid, and caRenewal how long before its
	// end a stored one is replaced: a process may run for so long without a restart.
	caLifetime = 2 * 365 * 24 * time.Hour
	caRenewal  = 90 * 24 * time.Hour
	// leafLifetime is how long a certificate for one name is valid. It is replaced
	// at half of it.
	leafLifetime = 24 * time.Hour
	// clockTolerance is how far a client's clock may be behind.
	clockTolerance = time.Hour
	certificatePEM = "CERTIFICATE"
)

// Authority issues certificates for the names that it was made for, and for no others: its
// own certificate carries a critical name constraint (RFC 5280, section 4.2.1.10), so that
// clients that trust it do not believe it for another name, even if its key is stolen.
type Authority struct {
	certificate *x509.Certificate
	names       constraint
	// sign holds the key in a closure, where no printer or encoder finds it.
	sign   func(template *x509.Certificate, public crypto.PublicKey) (der []byte, err error)
	leaves leafCache
	now    func() time.Time
}

// NewAuthority returns an authority whose key exists in memory only. It is valid for two
// years, for the host names, everything below them, and the IP addresses.
func NewAuthority(names []string) (*Authority, error) {
	permitted, err := newConstraint(names)
	if err != nil {
		return nil, err
	}
	key, certificate, err := newCA(permitted, time.Now())
	if err != nil {
		return nil, err
	}
	return newAuthority(key, certificate, permitted), nil
}

func newAuthority(key *ecdsa.PrivateKey, certificate *x509.Certificate, permitted constraint) *Authority {
	return &Authority{
		certificate: certificate,
		names:       permitted,
		sign: func(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, template, certificate, public, key)
		},
		now: time.Now,
	}
}

// newCA makes a key and its certificate, which signs itself.
func newCA(permitted constraint, now time.Time) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making the CA's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: caName},
		NotBefore:             now.Add(-clockTolerance),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	permitted.apply(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the CA's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return key, certificate, err
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return encodeCertificate(a.certificate.Raw) }

// Bundle returns the certificates of PEM texts, followed by the authority's: what a client
// needs to trust its usual servers and the proxy. Anything but certificates is left out.
func (a *Authority) Bundle(roots ...[]byte) []byte {
	var out []byte
	for _, text := range roots {
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == certificatePEM {
				out = append(out, encodeCertificate(block.Bytes)...)
			}
		}
	}
	return append(out, a.PEM()...)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificatePEM, Bytes: der})
}

// TLSConfig returns a configuration for servers of the authority's names, HTTP/2 included.
// A client that sends no server name gets the certificate of fallbackName.
func (a *Authority) TLSConfig(fallbackName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.Certificate(cmp.Or(hello.ServerName, fallbackName))
		},
	}
}

// Certificate returns a certificate for a host name or an IP address. Concurrent calls for
// one name share one. It returns an error for a name that the authority was not made for.
func (a *Authority) Certificate(name string) (*tls.Certificate, error) {
	host, err := parseHost(name)
	if err != nil {
		return nil, err
	}
	if !a.names.covers(host) {
		return nil, fmt.Errorf("the interception CA issues no certificate for %s: it is not a host of Mimecast's API", host)
	}
	now := a.now()
	if now.After(a.certificate.NotAfter) {
		return nil, errors.New("the interception CA has expired: restart the proxy, and give the clients its new certificate")
	}
	return a.leaves.get(host, now, func() (*tls.Certificate, error) { return a.issue(host, now) })
}

// issue makes a certificate and its key, without any check of the name.
func (a *Authority) issue(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key for %s: %w", host, err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: host},
		NotBefore:             now.Add(-clockTolerance),
		NotAfter:              earlier(now.Add(leafLifetime), a.certificate.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		template.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := a.sign(template, &key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate for %s: %w", host, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// constraint is what an authority may vouch for. Both lists are sorted, without duplicates.
type constraint struct {
	domains   []string
	addresses []netip.Addr
}

func newConstraint(names []string) (constraint, error) {
	var c constraint
	for _, name := range names {
		host, err := parseHost(name)
		if err != nil {
			return constraint{}, fmt.Errorf("a name of the interception CA: %w", err)
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			c.addresses = append(c.addresses, ip)
		} else {
			c.domains = append(c.domains, host)
		}
	}
	if len(c.domains) == 0 {
		return constraint{}, errors.New("the interception CA needs a host name: without one, its certificate would constrain no names")
	}
	slices.Sort(c.domains)
	slices.SortFunc(c.addresses, netip.Addr.Compare)
	c.domains, c.addresses = slices.Compact(c.domains), slices.Compact(c.addresses)
	return c, nil
}

// apply writes the constraint into a CA's certificate. A form of name that a constraint
// does not mention is not constrained: if there are no addresses, all are excluded.
func (c constraint) apply(template *x509.Certificate) {
	template.PermittedDNSDomainsCritical = true
	template.PermittedDNSDomains = c.domains
	for _, ip := range c.addresses {
		template.PermittedIPRanges = append(template.PermittedIPRanges, ipRange(netip.PrefixFrom(ip, ip.BitLen())))
	}
	if len(c.addresses) == 0 {
		template.ExcludedIPRanges = []*net.IPNet{ipRange(netip.MustParsePrefix("0.0.0.0/0")), ipRange(netip.MustParsePrefix("::/0"))}
	}
}

// equal reports whether a certificate carries this constraint.
func (c constraint) equal(certificate *x509.Certificate) bool {
	var want x509.Certificate
	c.apply(&want)
	sameRanges := func(a, b []*net.IPNet) bool {
		return slices.EqualFunc(a, b, func(a, b *net.IPNet) bool { return a.String() == b.String() })
	}
	return certificate.PermittedDNSDomainsCritical && slices.Equal(certificate.PermittedDNSDomains, want.PermittedDNSDomains) &&
		sameRanges(certificate.PermittedIPRanges, want.PermittedIPRanges) && sameRanges(certificate.ExcludedIPRanges, want.ExcludedIPRanges)
}

// covers reports whether the constraint permits a host, which parseHost has returned.
func (c constraint) covers(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return slices.Contains(c.addresses, ip)
	}
	return slices.ContainsFunc(c.domains, func(domain string) bool {
		return host == domain || strings.HasSuffix(host, "."+domain)
	})
}

func ipRange(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
