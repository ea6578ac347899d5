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
	// caName and issuerName begin the subjects of every authority. The rest is random,
	// since clients look for an issuer by its subject.
	caName     = "Mimecast Proxy interception CA"
	issuerName = "Mimecast Proxy interception issuer"
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
// certificates carry a critical name constraint (RFC 5280, section 4.2.1.10), so that clients
// that trust it do not believe it for another name, even if its key is stolen.
//
// It has two certificates, since some clients, Java among them, do not read the constraint of
// the one that they are set to trust. That is the root, whose key signs the issuer and is
// then forgotten. The issuer's key signs the rest.
type Authority struct {
	root, issuer *x509.Certificate
	names        constraint
	// sign holds the issuer's key in a closure, where no printer or encoder finds it.
	sign   func(template *x509.Certificate, public crypto.PublicKey) (der []byte, err error)
	leaves leafCache
	now    func() time.Time
	// renewed is why it replaced a stored one.
	renewed string
}

// chain is what an authority consists of.
type chain struct {
	key          *ecdsa.PrivateKey // the issuer's
	issuer, root *x509.Certificate
}

// NewAuthority returns an authority whose key exists in memory only. It is valid for two
// years, for the host names, everything below them, and the IP addresses.
func NewAuthority(names []string) (*Authority, error) {
	permitted, err := newConstraint(names)
	if err != nil {
		return nil, err
	}
	c, err := newChain(permitted, time.Now())
	if err != nil {
		return nil, err
	}
	return newAuthority(c, permitted), nil
}

func newAuthority(c *chain, permitted constraint) *Authority {
	return &Authority{
		root: c.root, issuer: c.issuer, names: permitted, now: time.Now,
		sign: func(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, template, c.issuer, public, c.key)
		},
	}
}

// newChain makes the root, which signs itself, and the issuer.
func newChain(permitted constraint, now time.Time) (*chain, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the interception CA's key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the interception CA's key: %w", err)
	}
	template := newCA(caName, 1, permitted, now)
	root, err := signCA(template, template, &rootKey.PublicKey, rootKey)
	if err != nil {
		return nil, err
	}
	issuer, err := signCA(newCA(issuerName, 0, permitted, now), root, &key.PublicKey, rootKey)
	return &chain{key, issuer, root}, err
}

// newCA returns the certificate of an authority below which there may be so many others.
func newCA(name string, below int, permitted constraint, now time.Time) *x509.Certificate {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name + " " + rand.Text()[:8]},
		NotBefore:             now.Add(-clockTolerance),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            below,
		MaxPathLenZero:        below == 0,
	}
	permitted.apply(template)
	return template
}

func signCA(template, parent *x509.Certificate, public, signer any) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing the interception CA: %w", err)
	}
	return x509.ParseCertificate(der)
}

// PEM returns the certificate that clients have to trust.
func (a *Authority) PEM() []byte { return encodeCertificate(a.root.Raw) }

// Renewed returns why the authority replaced the one that [LoadAuthority] found, such as
// "the names changed": clients have to be given the new certificate. It is empty if the
// stored authority was kept or there was none.
func (a *Authority) Renewed() string { return a.renewed }

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
		return nil, fmt.Errorf("the interception CA issues no certificate for %s: it is not a Mimecast API host", host)
	}
	now := a.now()
	if now.After(a.root.NotAfter) {
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
		NotAfter:              earlier(now.Add(leafLifetime), a.root.NotAfter),
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
	return &tls.Certificate{Certificate: [][]byte{der, a.issuer.Raw}, PrivateKey: key, Leaf: leaf}, nil
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
		return constraint{}, errors.New("the interception CA needs a host name: without one, its certificate would vouch for every name")
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
