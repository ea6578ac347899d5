package config

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// items are what stands between commas or line breaks, without blanks.
type items []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *items) UnmarshalText(text []byte) error {
	for item := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == ',' || r == '\n' }) {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// judged returns each item as judge writes it, and all refusals.
func (l items) judged(judge func(string) (string, error)) ([]string, error) {
	var accepted []string
	var refused []error
	for _, item := range l {
		clean, err := judge(item)
		accepted, refused = append(accepted, clean), append(refused, err)
	}
	return accepted, errors.Join(refused...)
}

// hosts are names that the proxy goes by.
type hosts []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *hosts) UnmarshalText(text []byte) (err error) {
	var l items
	_ = l.UnmarshalText(text) // which refuses nothing
	*h, err = l.judged(judgeHost)
	return err
}

func judgeHost(item string) (string, error) {
	if item == "*" {
		return item, nil
	}
	if name, ok := hostName(item); ok {
		return name, nil
	}
	if strings.Contains(item, "*") {
		return "", refusal{value: item, reason: "has a wildcard in it, and only a * alone is one"}
	}
	rest := item
	if _, after, ok := strings.Cut(item, "://"); ok {
		rest = after
	}
	if u, err := url.Parse("//" + rest); err == nil && u.User == nil {
		if name, ok := hostName(u.Hostname()); ok {
			return "", refusal{value: item, reason: "has more than the name in it", accepted: name}
		}
	}
	return "", refusal{value: item, reason: "is not a host name"}
}

var nameShape = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?$`)

// hostName returns a host name or an address in one way of writing it: lower
// case, without brackets and without the dot of the root.
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
	return name, !bracketed && nameShape.MatchString(name)
}

// origins are what a browser says of where a page came from.
type origins []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *origins) UnmarshalText(text []byte) (err error) {
	var l items
	_ = l.UnmarshalText(text) // which refuses nothing
	*o, err = l.judged(judgeOrigin)
	return err
}

func judgeOrigin(item string) (string, error) {
	switch item {
	case "*":
		return "", refusal{value: item, reason: "would let any web page that somebody opens on this machine use the account"}
	case "null":
		return "", refusal{value: item, reason: "is what browsers say for pages of any kind that hide their origin, so it would let any web page use the account"}
	}
	u, err := url.Parse(item)
	if err != nil || u.Scheme == "" {
		return "", refusal{value: item, reason: "is not an origin"}
	}
	host, ok := hostName(u.Hostname())
	if !ok || !isPort(u.Host, u.Port()) {
		return "", refusal{value: item, reason: "is not an origin"}
	}
	origin := writeOrigin(u.Scheme, host, u.Port())
	if u.User != nil || u.Path != "" || strings.ContainsAny(item, "?#") {
		return "", refusal{value: item, reason: "has more than scheme, host and port in it", accepted: origin}
	}
	return origin, nil
}

// writeOrigin writes an origin as browsers do, who leave out a scheme's own
// port.
func writeOrigin(scheme, host, port string) string {
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
