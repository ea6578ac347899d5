package config

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"mimecast-proxy/mimecast"
)

// endpoint is a URL that receives the secret or the token.
type endpoint struct{ *url.URL }

// UnmarshalText implements encoding.TextUnmarshaler.
func (e *endpoint) UnmarshalText(text []byte) error {
	value := string(text)
	u, err := url.Parse(strings.TrimRight(value, "/"))
	if err != nil || !u.IsAbs() || u.Hostname() == "" {
		return invalid("is not an absolute URL")
	}
	host := strings.ToLower(u.Hostname())
	region, isAPI1 := mimecast.RegionOfAPI1(strings.TrimSuffix(host, "."))
	switch {
	case u.User != nil:
		return invalid("contains a user name or password")
	case strings.ContainsAny(value, "?#"):
		return invalid("has a query or a fragment")
	case !isPort(u.Host, u.Port()):
		return invalid("has an invalid port")
	case isAPI1:
		return invalidValue{
			reason: "is an API 1.0 host, which accepts no bearer token",
			hint:   "the API 2.0 at " + mimecast.BaseURLs[region] + ", which is MIMECAST_REGION=" + region,
		}
	case u.Scheme == "http" && !isLoopback(host): // "127.0.0.1." is a name that DNS resolves
		return invalid("would send the credentials over the network in the clear")
	case u.Scheme != "http" && u.Scheme != "https":
		return invalid("has a scheme other than https")
	}
	u.Host = strings.ToLower(u.Host)
	e.URL = u
	return nil
}

// isPort reports whether the port of a URL's host is absent or valid.
func isPort(host, port string) bool {
	if port == "" {
		return !strings.HasSuffix(host, ":")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// setUpstream sets the base URL and the token URL.
func (p *parser) setUpstream(cfg *Config, v variables) {
	if p.environ["MIMECAST_BASE_URL"] == "" {
		cfg.Region = string(v.Region)
		cfg.BaseURL, _ = url.Parse(mimecast.BaseURLs[string(v.Region)]) // an invalid region is already reported
	} else {
		cfg.BaseURL = v.BaseURL.URL
		if p.environ["MIMECAST_REGION"] != "" {
			p.addError("MIMECAST_BASE_URL", "set together with MIMECAST_REGION", "one of the two")
		}
	}
	if base, ok := withoutTokenPath(cfg.BaseURL); ok {
		p.addError("MIMECAST_BASE_URL", quoted(cfg.BaseURL.String())+" is the URL of the token endpoint", base)
	}
	cfg.TokenURL = v.TokenURL.URL
	if p.environ["MIMECAST_TOKEN_URL"] == "" && cfg.BaseURL != nil {
		cfg.TokenURL = cfg.BaseURL.JoinPath(mimecast.TokenPath)
	}
}

// withoutTokenPath returns the base URL for the URL of a token endpoint. It reports
// false for any other URL.
func withoutTokenPath(u *url.URL) (string, bool) {
	if u == nil || !strings.HasSuffix(strings.ToLower(u.Path), mimecast.TokenPath) {
		return "", false
	}
	base := *u
	base.Path, base.RawPath = u.Path[:len(u.Path)-len(mimecast.TokenPath)], ""
	return base.String(), true
}

// lowerCaseWins replaces the corporate proxy's variables by their lower-case names, if
// those are set. FromEnvironment of golang.org/x/net/http/httpproxy, curl and other
// programs do the same.
func (p *parser) lowerCaseWins(names ...string) {
	for _, name := range names {
		lower := strings.ToLower(name)
		value, ok := p.environ[lower]
		if !ok {
			continue
		}
		if upper, ok := p.environ[name]; ok && upper != value {
			p.addWarning("%s and %s differ, and %s is used", name, lower, lower)
		}
		p.environ[name] = value
	}
}
