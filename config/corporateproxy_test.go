package config

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"
)

func TestProxyURLThatWouldBeMisreadIsRejected(t *testing.T) {
	for value, says := range map[string]string{
		"http://jdoe:100%@proxy:3128":        `user name or password that has a % that is not an escape; write it as %25`,
		"http://jdoe:50%zz@proxy":            "%25",
		"http://jdoe:p#ss@proxy:3128":        `the character '#' in it; write it as %23`,
		"http://jdoe:p/ss@proxy:3128":        `the character '/' in it; write it as %2F`,
		`http://CORP\jdoe:pw@proxy:3128`:     `the character '\\' in it; write it as %5C`,
		"http://jdoe:p?ss@proxy:3128":        `the character '?' in it; write it as %3F`,
		"http://jdoe:p ss@proxy:3128":        `the character ' ' in it; write it as %20`,
		"http://jdoe:p\"ss@proxy:3128":       `the character '"' in it; write it as %22`,
		"http://jdoe:p^ss@proxy":             "%5E",
		"http://jdoe:p[ss@proxy":             "%5B",
		"http://jdoe:pä@proxy":               "%C3%A4",
		`"http://jdoe:pw@proxy:3128"`:        "begins with the quotation mark",
		"'proxy:3128'":                       "begins with the quotation mark",
		"socks4://proxy:1080":                "a scheme other than http, https, socks5 or socks5h",
		"ftp://proxy":                        "a scheme other than",
		"jdoe:p://ss@proxy":                  "a scheme other than",
		"http://":                            "no valid host",
		"http://proxy:http":                  "no valid port",
		"http://proxy:99999":                 "no valid port",
		"http://proxy:3128/proxy.pac":        "'/'",
		"//proxy:3128":                       "'/'",
		"http:/proxy:3128":                   "'/'",
		"proxy:":                             "no valid host",
		"http://jdoe:pw@":                    "no valid host",
		"http://[::1":                        "'['",
		"http://jdoe:p\nss@proxy":            `'\n'`,
		"http://proxy.example:3128?x=secret": "'?'",
	} {
		var p corporateProxy
		err := p.UnmarshalText([]byte(value))
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "jdoe") {
			t.Errorf("%q: %v", value, err)
		}
		_, err = Parse([]string{"MIMECAST_CLIENT_ID=i", "MIMECAST_CLIENT_SECRET=s", "https_proxy=" + value}, nil)
		if err == nil || !strings.Contains(err.Error(), "HTTPS_PROXY: its value ") || strings.Contains(err.Error(), "jdoe") {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestProxyURLsThatAreUsed(t *testing.T) {
	for value, host := range map[string]string{
		"proxy": "proxy", "proxy:3128": "proxy:3128", "http://proxy:3128/": "proxy:3128", "HTTPS://Proxy.example:443": "Proxy.example:443", "socks5://10.0.0.1:1080": "10.0.0.1:1080",
		"socks5h://proxy": "proxy", "http://[::1]:3128": "[::1]:3128", "[::1]": "[::1]", "jdoe:pw@proxy:3128": "proxy:3128", "http://jdoe:p%23%2F%25@proxy": "proxy",
		"http://jdoe@corp.example:p@ss!$&'()*+,;=:-._~@proxy:1": "proxy:1", "http://CORP%5Cjdoe:pw@proxy": "proxy",
	} {
		var p corporateProxy
		if err := p.UnmarshalText([]byte(value)); err != nil {
			t.Errorf("%q: %v", value, err)
			continue
		}
		if u := dialed(t, value); u == nil || u.Host != host {
			t.Errorf("%q: %v", value, u)
		}
	}
}

// dialed returns the proxy that net/http would use for Mimecast; nil if none.
func dialed(t *testing.T, value string) *url.URL {
	t.Helper()
	u, err := (&httpproxy.Config{HTTPSProxy: value}).ProxyFunc()(&url.URL{Scheme: "https", Host: "api.services.mimecast.com"})
	if err != nil {
		t.Errorf("%q: %v", value, err)
	}
	return u
}

// FuzzForwardProxy checks that net/http uses each accepted value as a corporate proxy.
// The host must be the one after the last @, as a reader sees it.
func FuzzForwardProxy(f *testing.F) {
	for _, s := range []string{"http://u:p@proxy:3128", "proxy", "socks5://[::1]:1", "http://u:100%@p", "http://u:p#ss@p", "u:p/ss@p", `CORP\u:p@p`, "socks4://p", "'p'", "http://a@b@c:1/", "http://p:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var p corporateProxy
		if s == "" || p.UnmarshalText([]byte(s)) != nil {
			return
		}
		u := dialed(t, s)
		if u == nil || !slices.Contains(proxySchemes, u.Scheme) || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q is %v", s, u)
		}
		seen := strings.TrimSuffix(s, "/")
		seen = seen[strings.LastIndexAny(seen, "@/")+1:]
		if !strings.EqualFold(u.Host, seen) {
			t.Fatalf("%q leads to %q, and reads as %q", s, u.Host, seen)
		}
	})
}

// FuzzCredentialFile checks that the secret is the file's content, without a byte order
// mark and a trailing line end.
func FuzzCredentialFile(f *testing.F) {
	for _, s := range []string{"a", "a\n", "\ufeffa\r\n", "\xff\xfea\x00", `"a"`, `{"a":1}`, "A=b", "a\u200b", " a", "a\n\n", "a==", "\ufeff\ufeffa"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		values, err := parseSecret(content)
		if err != nil {
			return
		}
		got := values[0].Reveal()
		rest := strings.TrimPrefix(string(content), byteOrderMark)
		if end := strings.TrimPrefix(rest, got); len(values) != 1 || got == "" || rest != got+end || end != "" && end != "\n" && end != "\r\n" {
			t.Fatalf("%q is read as %q", content, got)
		}
	})
}
