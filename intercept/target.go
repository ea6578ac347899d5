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

// target is where a client wants to connect to.
type target struct {
	// host is a host name in lower case and without a final dot, or an IP address as
	// netip writes it, without brackets.
	host string
	port int
}

// String returns the target as a dialer takes it.
func (t target) String() string {
	if strings.Contains(t.host, ":") {
		return fmt.Sprintf("[%s]:%d", t.host, t.port)
	}
	return fmt.Sprintf("%s:%d", t.host, t.port)
}

// parseTarget reads host:port or [address]:port. If defaultPort is not 0, the port may be
// missing.
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

// parsePort accepts digits alone, where strconv accepts a sign.
func parsePort(s string) (int, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 || port > maxPort {
		return 0, errTarget
	}
	return int(port), nil
}

// parseHost reads a host name or an IP address without brackets, and returns it in the
// only way in which hosts are compared. What resolvers read in different ways, such as
// 127.1, is rejected.
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
	host = strings.ToLower(host) // ASCII by now: other letters can have ASCII lower cases
	last := host[strings.LastIndexByte(host, '.')+1:]
	// Resolvers take a name that ends in a number for an IPv4 address.
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
