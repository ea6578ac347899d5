package config

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// regions are Mimecast's gateways for the API 2.0.
var regions = map[string]string{
	"global": "https://api.services.mimecast.com",
	"us":     "https://us-api.services.mimecast.com",
	"uk":     "https://uk-api.services.mimecast.com",
}

func (j *judge) urls(cfg *Config) {
	region := j.choice("MIMECAST_REGION", j.vars.Region)
	base := regions[region]
	if v := j.vars.BaseURL; v != "" {
		base = v
		if j.environ["MIMECAST_REGION"] != "" {
			j.say("MIMECAST_BASE_URL", "set together with MIMECAST_REGION; set one of them")
		}
	}
	if base == "" { // the region is a fault already
		return
	}
	cfg.BaseURL = j.url("MIMECAST_BASE_URL", base)
	token := j.vars.TokenURL
	if token == "" && cfg.BaseURL != nil {
		token = cfg.BaseURL.String() + "/oauth/token"
	}
	if token != "" {
		cfg.TokenURL = j.url("MIMECAST_TOKEN_URL", token)
	}
}

// url judges where the secret or the token is sent to. It returns nil for what
// is not to be used.
func (j *judge) url(name, value string) *url.URL {
	u, err := url.Parse(strings.TrimRight(value, "/"))
	if err != nil || u.Host == "" || u.Opaque != "" {
		j.fault(name, "it is not an absolute URL") // which may hold a password
		return nil
	}
	before := len(j.faults)
	host := strings.ToLower(u.Hostname())
	switch {
	case u.User != nil:
		j.fault(name, "it has a user name or password in it")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		j.fault(name, "it has a query or a fragment")
	case u.Scheme == "http" && !isLoopback(host):
		j.fault(name, "http to %s would send the credentials over the network in the clear", host)
	case u.Scheme != "http" && u.Scheme != "https":
		j.fault(name, "scheme %q", u.Scheme)
	case host == "api.mimecast.com" || strings.HasSuffix(host, "-api.mimecast.com"):
		j.say(name, "%s is a host of API 1.0, which takes no bearer token; the API 2.0 is at %s", host, successor(host))
	}
	if len(j.faults) > before {
		return nil
	}
	return u
}

// successor names the API 2.0 gateway in place of a host of API 1.0.
func successor(host string) string {
	for _, region := range []string{"us", "uk"} {
		if strings.HasPrefix(host, region) {
			return regions[region] + " (MIMECAST_REGION=" + region + ")"
		}
	}
	return regions["global"] + " (MIMECAST_REGION=global)"
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Address is where to listen. The zero value is nowhere.
type Address struct {
	// Network is "tcp" or "unix".
	Network string
	// Address is host:port, or a path.
	Address string
}

// IsZero reports whether there is no address.
func (a Address) IsZero() bool { return a.Address == "" }

// Loopback reports whether only this machine can reach the address.
func (a Address) Loopback() bool {
	host, _, err := net.SplitHostPort(a.Address)
	return a.Network == "unix" || err == nil && isLoopback(strings.ToLower(host))
}

// String returns the address as the operator writes it.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}

func (j *judge) address(name, value string) Address {
	if path, ok := strings.CutPrefix(value, "unix:"); ok {
		if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, `\`) && !strings.Contains(path, ":") {
			j.fault(name, "%q has no absolute path", value)
		}
		return Address{"unix", path}
	}
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, "/@ ") {
		j.fault(name, "%q is not an address to listen at", value)
	}
	return Address{"tcp", value}
}

func (j *judge) admin() Address {
	if j.vars.AdminListen == "off" {
		return Address{}
	}
	return j.address("PROXY_ADMIN_LISTEN", j.vars.AdminListen)
}

// listeners judges what depends on more than one variable: an account is not
// offered to a network by accident.
func (j *judge) listeners(cfg *Config) {
	cfg.Admin = j.admin()
	trusted := j.boolean("PROXY_TRUST_NETWORK", j.vars.TrustNetwork)
	if len(j.faults) == 0 && !cfg.Listen.Loopback() && cfg.APIKey.IsZero() && !trusted {
		j.say("PROXY_LISTEN", "%v can be reached from other machines, and whoever reaches it would use the account. "+
			"Set PROXY_API_KEY or PROXY_API_KEY_FILE so that requests must carry a key; "+
			"in a container whose network is private, such as a compose network, PROXY_TRUST_NETWORK=true says that you trust it", cfg.Listen)
	}
	if cfg.Listen == cfg.Admin && !strings.HasSuffix(cfg.Listen.Address, ":0") {
		j.say("PROXY_ADMIN_LISTEN", "%v is PROXY_LISTEN's too; give it another port, or off", cfg.Admin)
	}
}
