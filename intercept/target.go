package intercept

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxHost  = 253 // RFC 1035, section 2.3.4
	maxLabel = 63
	maxPort  = 1<<16 - 1
)

var errTarget = errors.New("the target is not a host name or IP address and a port")

// target is the host and port that a client wants to reach.
type target struct {
	// host is in the form that parseHost returns.
	host string
	port int
}

// String returns host:port or [address]:port, as a dialer accepts it.
func (t target) String() string {
	if strings.Contains(t.host, ":") {
		return fmt.Sprintf("[%s]:%d", t.host, t.port)
	}
	return fmt.Sprintf("%s:%d", t.host, t.port)
}

// parseTarget parses host:port or [address]:port. The port is optional unless defaultPort is
// 0.
func parseTarget(authority string, defaultPort int) (target, error) {
	if len(authority) > maxHost+len(".:65535") {
		return target{}, errTarget
	}
	name, port := authority, defaultPort
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		var err error
		if port, err = parsePort(authority[i+1:]); err != nil {
			return target{}, err
		}
		name = authority[:i]
	}
	if port == 0 {
		return target{}, errTarget
	}
	bracketed := strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") && len(name) > 1
	if bracketed {
		name = name[1 : len(name)-1]
	}
	host, err := parseHost(name)
	if err != nil || bracketed != strings.Contains(host, ":") {
		return target{}, errTarget
	}
	return target{host, port}, nil
}

// parsePort parses a port from 1 to 65535. ParseUint accepts no sign, unlike Atoi.
func parsePort(s string) (int, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 || port > maxPort {
		return 0, errTarget
	}
	return int(port), nil
}

// parseHost parses a host name, or an IP address without brackets. It returns the canonical
// form for comparisons: a host name in lower case and without a final dot, or an IP address as
// netip formats it. It rejects names that resolvers interpret differently, such as 127.1.
func parseHost(s string) (string, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" {
			return "", errTarget
		}
		return ip.Unmap().String(), nil
	}
	host := strings.TrimSuffix(s, ".")
	if len(host) > maxHost {
		return "", errTarget
	}
	for label := range strings.SplitSeq(host, ".") {
		if !isLabel(label) {
			return "", errTarget
		}
	}
	host = strings.ToLower(host) // ASCII only: some other letters have ASCII lower-case forms
	last := host[strings.LastIndexByte(host, '.')+1:]
	// Some resolvers take a name that ends in a number for an IPv4 address.
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", errTarget
	}
	return host, nil
}

func isLabel(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxLabel
}
