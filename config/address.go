package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxSocketPath is the longest path of a unix socket on Linux, in bytes. For a longer
// one, the kernel only reports "invalid argument".
const maxSocketPath = 107

// Address is an address to listen on. The zero value means none.
type Address struct {
	// Network is "tcp" or "unix", as for [net.Listen].
	Network string
	// Address is host:port, or the path of a unix socket.
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

// overlaps reports whether one process cannot listen on both addresses. Port 0 overlaps
// with nothing.
func (a Address) overlaps(b Address) bool {
	if a.Network != b.Network || a.IsZero() {
		return false
	}
	if a.Network == "unix" {
		return filepath.Clean(a.Address) == filepath.Clean(b.Address)
	}
	hostA, portA := a.normalized()
	hostB, portB := b.normalized()
	return portA != 0 && portA == portB && (covers(hostA, hostB) || covers(hostB, hostA))
}

// normalized returns the host and port in canonical form.
func (a Address) normalized() (string, uint64) {
	host, port, _ := net.SplitHostPort(a.Address) // checked when a was parsed
	n, _ := strconv.ParseUint(port, 10, 16)
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return host, n
}

// covers reports whether listening on host includes other.
func covers(host, other string) bool {
	switch host {
	case "", "::", "0.0.0.0": // for each, net.Listen accepts both IPv4 and IPv6
		return true
	}
	return host == other
}

// listenAddresses are the addresses to listen on; empty for "off".
type listenAddresses []Address

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *listenAddresses) UnmarshalText(text []byte) error {
	if strings.EqualFold(string(text), "off") {
		return nil
	}
	var l list
	_ = l.UnmarshalText(text) // never fails
	if len(l) == 0 {
		return invalid("has no address in it")
	}
	var errs []error
	for _, item := range l {
		a, err := parseAddress(item)
		if r, ok := errors.AsType[invalidValue](err); ok {
			r.value = item
			err = r
		}
		*b, errs = append(*b, a), append(errs, err)
	}
	return errors.Join(errs...)
}

// optionalAddress is an address to listen on; zero for "off".
type optionalAddress struct{ Address }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *optionalAddress) UnmarshalText(text []byte) (err error) {
	if !strings.EqualFold(string(text), "off") {
		b.Address, err = parseAddress(string(text))
	}
	return err
}

func parseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return parseSocket(path)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return Address{}, invalid("is not an address to listen at")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Address{}, invalid("has no port from 0 to 65535")
	}
	zoneless, _, _ := strings.Cut(host, "%")
	if _, ok := hostName(zoneless); host != "" && !ok {
		return Address{}, invalid("has no host name or IP address before the port")
	}
	return Address{"tcp", s}, nil
}

func parseSocket(path string) (Address, error) {
	switch {
	case !strings.HasPrefix(path, "/") && !filepath.IsAbs(path):
		return Address{}, invalid("has no absolute path")
	case len(path) > maxSocketPath:
		return Address{}, invalid("has a path of more than %d bytes, too long for a socket", maxSocketPath)
	case strings.ContainsFunc(path, isControl):
		return Address{}, invalid("has a control character in it")
	}
	return Address{"unix", path}, nil
}

// checkListeners checks the addresses against each other and against the variables that
// protect them. No account may become reachable from a network by accident.
func (p *parser) checkListeners(cfg Config) {
	var all []Address
	for _, a := range cfg.Listen {
		p.checkDataListener("PROXY_LISTEN", cfg, a, all)
		all = append(all, a)
	}
	for _, a := range cfg.TLSListen {
		p.checkDataListener("PROXY_TLS_LISTEN", cfg, a, all)
		all = append(all, a)
	}
	for _, a := range cfg.InterceptListen {
		if a.Network == "unix" {
			p.addError("PROXY_INTERCEPT_LISTEN", quoted(a.String())+" is a unix socket, and clients cannot set HTTPS_PROXY to one", "host:port")
		}
		if !a.Loopback() && cfg.TrustNetwork && !p.keyRequired(cfg) {
			p.addError("PROXY_INTERCEPT_LISTEN", quoted(a.String())+" is open to other machines without a key, which PROXY_TRUST_NETWORK does not allow for a forward proxy",
				"a loopback address; or PROXY_API_KEY, PROXY_API_KEY_FILE or PROXY_CLIENTS_FILE, with the key as the password in the client's HTTPS_PROXY")
		}
		p.checkDataListener("PROXY_INTERCEPT_LISTEN", cfg, a, all)
		all = append(all, a)
	}
	p.checkTLS(cfg)
	p.checkSocketDir("PROXY_ADMIN_LISTEN", cfg.Admin)
	if slices.ContainsFunc(all, cfg.Admin.overlaps) {
		p.addError("PROXY_ADMIN_LISTEN", quoted(cfg.Admin.String())+" overlaps with PROXY_LISTEN or PROXY_TLS_LISTEN", "another port, or off")
	}
	// Clients set MIMECAST_BASE_URL to the proxy, and the proxy may share their
	// environment.
	if u := cfg.BaseURL; u != nil && isLoopback(u.Hostname()) && slices.ContainsFunc(all, Address{"tcp", u.Host}.overlaps) {
		p.addError("MIMECAST_BASE_URL", quoted(u.String())+" is the proxy's own address, so requests would loop",
			"Mimecast's URL; unset it if only the client needs it")
	}
}

// checkTLS checks the certificate and the interception CA's folder, and that a data
// listener is configured.
func (p *parser) checkTLS(cfg Config) {
	if len(cfg.TLSListen) == 0 && !cfg.TLS.IsZero() && !p.hasError("PROXY_TLS_LISTEN") {
		p.addWarning("PROXY_TLS_CERT_FILE is set, but PROXY_TLS_LISTEN is not: the certificate is not used")
	}
	anyFailed := p.hasError("PROXY_LISTEN") || p.hasError("PROXY_TLS_LISTEN") || p.hasError("PROXY_INTERCEPT_LISTEN")
	if len(cfg.Listen) == 0 && len(cfg.TLSListen) == 0 && !anyFailed {
		p.addError("PROXY_LISTEN", "off, and PROXY_TLS_LISTEN is not set, so no client could reach the proxy", "an address in one of them")
	}
	if dir := cfg.InterceptCADir; dir != "" && !filepath.IsAbs(dir) {
		p.addError("PROXY_INTERCEPT_CA_DIR", quoted(dir)+" is not an absolute path", "an absolute path")
	}
}

// checkDataListener checks one address of a variable. before has the addresses checked
// earlier, from all data listeners.
func (p *parser) checkDataListener(variable string, cfg Config, a Address, before []Address) {
	if !a.IsZero() && !a.Loopback() && !p.keyRequired(cfg) && !cfg.TrustNetwork {
		p.addError(variable, quoted(a.String())+" is open to other machines without a key, so every client that connects could use the account",
			"a loopback address; or PROXY_API_KEY, PROXY_API_KEY_FILE or PROXY_CLIENTS_FILE, so that every request must carry a key; "+
				"or PROXY_TRUST_NETWORK=true if only authorized clients can connect, as in a container with a private compose network")
	}
	p.checkSocketDir(variable, a)
	if i := slices.IndexFunc(before, a.overlaps); i >= 0 {
		p.addError(variable, fmt.Sprintf("%s overlaps with %s", quoted(a.String()), quoted(before[i].String())), "addresses that do not overlap; :PORT and 0.0.0.0:PORT include all addresses of the machine")
	}
}

// keyRequired reports whether every request must carry a key. A key variable with an
// error counts: it will require one once fixed.
func (p *parser) keyRequired(cfg Config) bool {
	return cfg.KeyRequired() || p.hasError("PROXY_API_KEY")
}

// checkSocketDir checks that the directory of a unix socket exists. If the directory
// cannot be read, net.Listen reports that later.
func (p *parser) checkSocketDir(variable string, a Address) {
	if a.Network != "unix" {
		return
	}
	dir := filepath.Dir(a.Address)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		p.addError(variable, fmt.Sprintf("%s is in the directory %q, which does not exist", quoted(a.String()), dir), "a path in a directory that exists")
	case err == nil && !info.IsDir():
		p.addError(variable, fmt.Sprintf("%s is in %q, which is not a directory", quoted(a.String()), dir), "a path in a directory that exists")
	}
}
