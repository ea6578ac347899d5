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
	// caName and issuerName are the prefixes of the certificates' common names. A random
	// suffix follows, since clients find an issuer by its subject.
	caName     = "Mimecast Proxy interception CA"
	issuerName = "Mimecast Proxy interception issuer"
	// caLifetime is how long an authority is valid. caRenewal is how long before its expiry
	// a stored one is replaced, so that a process can run that long without a restart.
	caLifetime = 2 * 365 * 24 * time.Hour
	caRenewal  = 90 * 24 * time.Hour
	// leafLifetime is how long a certificate for one name is valid. It is replaced after
	// half of that.
	leafLifetime = 24 * time.Hour
	// clockTolerance is how far a client's clock may be behind this machine's.
	clockTolerance = time.Hour
	certificatePEM = "CERTIFICATE"
)

// Authority is a CA that issues certificates for the names it was created with, and no others.
// Its own certificates have a critical name constraint (RFC 5280, section 4.2.1.10). Even with
// a stolen key, clients that trust it accept no certificate for another name.
//
// The authority has a root and an issuer, since some clients, such as Java, ignore the name
// constraint of a trusted root. The root's key signs the issuer and is then discarded. The
// issuer's key signs all other certificates.
//
// Use [NewAuthority] or [LoadAuthority] to create one; the zero value is not usable.
type Authority struct {
	root, issuer *x509.Certificate
	names        constraint
	// sign signs with the issuer's key. The key is in a closure, so that printing or encoding
	// the Authority cannot reveal it.
	sign   func(template *x509.Certificate, public crypto.PublicKey) (der []byte, err error)
	leaves leafCache
	now    func() time.Time
	// renewed is why this authority replaced a stored one; empty: it did not.
	renewed string
}

// chain is an authority's certificates and key, in the form that is stored.
type chain struct {
	key          *ecdsa.PrivateKey // the issuer's
	issuer, root *x509.Certificate
}

// NewAuthority returns an authority with a key that exists in memory only. It is valid for two
// years. names are host names, which include their subdomains, and IP addresses; at least one
// must be a host name.
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

// newChain creates a self-signed root and the issuer below it.
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

// newCA returns the template of a CA certificate. below is the number of CAs allowed below it,
// the path length of RFC 5280, section 4.2.1.9.
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

// PEM returns the root certificate, which clients must trust, in PEM form.
func (a *Authority) PEM() []byte { return encodeCertificate(a.root.Raw) }

// Renewed returns why [LoadAuthority] replaced a stored authority, such as "the names changed".
// Clients then need the new certificate. It returns an empty string if the stored authority
// was kept or there was none.
func (a *Authority) Renewed() string { return a.renewed }

// Bundle returns the certificates in roots, which are PEM texts, followed by the authority's
// root. A client with this bundle trusts its usual servers and the proxy. Bundle skips PEM
// blocks that are not certificates.
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

// TLSConfig returns a configuration for a server of the authority's names, with HTTP/2. A
// client that sends no server name gets the certificate for fallbackName.
func (a *Authority) TLSConfig(fallbackName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.Certificate(cmp.Or(hello.ServerName, fallbackName))
		},
	}
}

// Certificate returns a certificate for a host name or an IP address. Concurrent calls for the
// same name share one certificate. It returns an error if the authority does not cover the
// name, or has expired.
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

// issue creates a certificate and its key. The caller must have checked the name.
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

// constraint is the names that an authority may issue certificates for. Both lists are sorted
// and have no duplicates.
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

// apply adds the constraint to a CA certificate. A constraint does not restrict name types that
// it does not list. Without addresses, apply therefore excludes all IP addresses.
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

// equal reports whether a certificate has this constraint.
func (c constraint) equal(certificate *x509.Certificate) bool {
	var want x509.Certificate
	c.apply(&want)
	sameRanges := func(a, b []*net.IPNet) bool {
		return slices.EqualFunc(a, b, func(a, b *net.IPNet) bool { return a.String() == b.String() })
	}
	return certificate.PermittedDNSDomainsCritical && slices.Equal(certificate.PermittedDNSDomains, want.PermittedDNSDomains) &&
		sameRanges(certificate.PermittedIPRanges, want.PermittedIPRanges) && sameRanges(certificate.ExcludedIPRanges, want.ExcludedIPRanges)
}

// covers reports whether the constraint permits a host in the form that parseHost returns.
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
