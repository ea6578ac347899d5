package intercept

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"mimecast-proxy/mimecast"
)

var targets = map[string]string{ // by input, what parseTarget returns; empty: an error
	"eu-api.mimecast.com:443":           "eu-api.mimecast.com:443",
	"EU-api.Mimecast.COM.:443":          "eu-api.mimecast.com:443",
	"eu-api.mimecast.com.evil.test:443": "eu-api.mimecast.com.evil.test:443",
	"a_b.example:1":                     "a_b.example:1",
	"localhost:65535":                   "localhost:65535",
	"127.0.0.1:80":                      "127.0.0.1:80",
	"[::1]:443":                         "[::1]:443",
	"[2001:DB8:0::1]:443":               "[2001:db8::1]:443",

	"": "", "a": "", "a:": "", ":443": "", "a:0": "", "a:65536": "", "a:+443": "", "a:-1": "", "a:443 ": "", "a:https": "",
	"a..b:443": "", ".a:443": "", "a..:443": "", ".:443": "", "a b:443": "", "a/b:443": "", "u@a:443": "", "a\x00b:443": "", "a%2eb:443": "",
	"\u212a.example:443": "", "ümlaut.example:443": "", "::1:443": "", "[::1]": "", "[::1]443": "", "[::1%25lo]:443": "", "[fe80::1%lo]:443": "",
	"[a.example]:443": "", "[127.0.0.1]:443": "", "[::ffff:127.0.0.1]:443": "", "[]:443": "", "[:443": "",
	"127.1:443": "", "2130706433:443": "", "0x7f000001:443": "", "0x7f.1:443": "", "127.0.0.01:443": "", "a.1:443": "", "127.0.0.1.:443": "",
	strings.Repeat("a", 64) + ":443": "", strings.Repeat("a.", 127) + "a:443": "",
}

func TestParseTarget(t *testing.T) {
	for in, want := range targets {
		got, err := parseTarget(in, 0)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{host: host + ":443", "[::1]": "[::1]:443", host + ":80": host + ":80", "::1": "", host + ":": ""} {
		if got, err := parseTarget(in, 443); (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for in := range targets {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseTarget(in, 0)
		if err != nil {
			return
		}
		if again, err := parseTarget(got.String(), 0); err != nil || again != got {
			t.Errorf("%q: %v, then %v, %v", in, got, again, err)
		}
		if got.port < 1 || got.port > 65535 || strings.ContainsAny(got.host, " /@%\r\n\x00") {
			t.Errorf("%q: %v", in, got)
		}
		name, _, _ := strings.Cut(strings.ToLower(in), ":")
		if mimecast.IsAPIHost(got.host) && strings.TrimSuffix(name, ".") != got.host {
			t.Errorf("%q is taken for %s", in, got.host)
		}
		if _, err := netip.ParseAddr(got.host); err == nil && fmt.Sprint(netip.MustParseAddr(got.host)) != got.host {
			t.Errorf("%q: %q is not canonical", in, got.host)
		}
	})
}
