package batch

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// notPublic are the networks that the Internet does not route, or that lead to somewhere
// else: those of IANA's special-purpose registries. See also [globalIPv6].
var notPublic = parsePrefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carrier-grade NAT; a cloud's metadata too
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's host agent, in a public range
	"169.254.0.0/16",   // link-local, and most clouds' metadata
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments; a cloud's metadata too
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved; broadcast
	"2001::/23",        // Teredo, benchmarks and other protocol assignments
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4: any IPv4 address may be inside
	"3fff::/20",        // documentation
)

var (
	// globalIPv6 is the only part of IPv6 that is assigned to hosts of the Internet.
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	// nat64 has an IPv4 address in its last four bytes (RFC 6052).
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
)

func parsePrefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// isPublic reports whether an address is one of the Internet's.
func isPublic(ip netip.Addr) bool {
	ip = ip.Unmap()
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if !ip.IsValid() || ip.Zone() != "" || ip.Is6() && !globalIPv6.Contains(ip) {
		return false
	}
	return !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// localDomains are top-level names that a resolver may know, but not the Internet's.
var localDomains = []string{"corp", "home", "internal", "intranet", "lan", "local", "localdomain", "localhost", "private"}

// isPublicName reports whether a host is a name that may be in the Internet's DNS. That
// leaves out each spelling of an IP address: also those that some resolvers take for
// one, such as 127.1 or 0x7f000001.
func isPublicName(host string) bool {
	if host = strings.TrimSuffix(host, "."); strings.ContainsFunc(host, notInNames) {
		return false
	}
	labels := strings.Split(strings.ToLower(host), ".")
	if len(labels) < 2 || slices.Contains(labels, "") {
		return false
	}
	last := labels[len(labels)-1]
	isNumber := last[0] >= '0' && last[0] <= '9' // no top-level domain begins with a digit
	return !isNumber && !slices.Contains(localDomains, last) && !slices.Equal(labels[len(labels)-2:], []string{"home", "arpa"})
}

// notInNames reports whether host names have no such character. Some others become one,
// or a dot, on the way to a resolver.
func notInNames(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}

// isLoopback reports whether a URL leads to this machine.
func isLoopback(u *url.URL) bool {
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
