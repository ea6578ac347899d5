package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// list has the items of a text, separated by commas or line breaks and trimmed.
type list []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *list) UnmarshalText(text []byte) error {
	for item := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == ',' || r == '\n' }) {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// parseEach parses each item and returns all values and all errors.
func (l list) parseEach(parse func(string) (string, error)) ([]string, error) {
	var values []string
	var errs []error
	for _, item := range l {
		value, err := parse(item)
		values, errs = append(values, value), append(errs, err)
	}
	return values, errors.Join(errs...)
}

// hostNames are names to accept in the Host header.
type hostNames []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hostNames) UnmarshalText(text []byte) (err error) {
	var l list
	_ = l.UnmarshalText(text) // never fails
	*h, err = l.parseEach(parseHost)
	return err
}

func parseHost(item string) (string, error) {
	if item == "*" {
		return item, nil
	}
	if name, ok := hostName(item); ok {
		return name, nil
	}
	if strings.Contains(item, "*") {
		return "", invalidValue{value: item, reason: "contains a wildcard; only * alone is allowed"}
	}
	rest := item
	if _, after, ok := strings.Cut(item, "://"); ok {
		rest = after
	}
	if u, err := url.Parse("//" + rest); err == nil && u.User == nil {
		if name, ok := hostName(u.Hostname()); ok {
			return "", invalidValue{value: item, reason: "contains more than a name", hint: name}
		}
	}
	return "", invalidValue{value: item, reason: "is not a host name"}
}

const maxHostName = 253 // in bytes: RFC 1035, section 2.3.4, without two bytes for the root

// The pattern has no length limit: a repetition of up to 251 takes milliseconds to
// compile at each program start.
var hostNamePattern = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$`)

// hostName returns a host name or IP address in canonical form: lower case, without
// brackets and without the root's trailing dot.
func hostName(s string) (string, bool) {
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, "]"); !closed {
			return "", false
		}
	}
	if ip, err := netip.ParseAddr(inner); err == nil {
		return ip.String(), ip.Zone() == "" && (!bracketed || ip.Is6())
	}
	name := strings.ToLower(strings.TrimSuffix(inner, "."))
	return name, !bracketed && len(name) <= maxHostName && hostNamePattern.MatchString(name)
}

// origins are origins of web pages, as browsers send them (RFC 6454, section 6.2).
type origins []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *origins) UnmarshalText(text []byte) (err error) {
	var l list
	_ = l.UnmarshalText(text) // never fails
	*o, err = l.parseEach(parseOrigin)
	return err
}

func parseOrigin(item string) (string, error) {
	switch item {
	case "*":
		return "", invalidValue{value: item, reason: "would let any web page in a browser on this machine use the account"}
	case "null":
		return "", invalidValue{value: item, reason: "is the origin of any page that hides its own, so it would let any web page use the account"}
	}
	u, err := url.Parse(item)
	if err != nil || u.Scheme == "" {
		return "", invalidValue{value: item, reason: "is not an origin"}
	}
	host, ok := hostName(u.Hostname())
	if !ok || !isPort(u.Host, u.Port()) {
		return "", invalidValue{value: item, reason: "is not an origin"}
	}
	origin := formatOrigin(u.Scheme, host, u.Port())
	if u.User != nil || u.Path != "" || strings.ContainsAny(item, "?#") {
		return "", invalidValue{value: item, reason: "contains more than scheme, host and port", hint: origin}
	}
	return origin, nil
}

// formatOrigin returns an origin as browsers send it, without the scheme's default port
// (RFC 6454, section 6.2).
func formatOrigin(scheme, host, port string) string {
	if scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		port = ""
	}
	if port != "" {
		return scheme + "://" + net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return scheme + "://" + host
}
