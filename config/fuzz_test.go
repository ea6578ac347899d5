package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const markedSecret = "s3cr3t-marked"

func FuzzParse(f *testing.F) {
	f.Add("PROXY_LISTEN=unix:/x\x00PROXY_ALLOW=a,b\x00GOMEMLIMIT=1", "/oauth/token")
	f.Add("PROXY_ALLOWED_HOSTS=[::1],*,a:b\x00PROXY_LISTN=1\x00PROXY_API_KEY=", "?#@")
	f.Add("MIMECAST_REGION=eu\x00PROXY_LISTEN=:80\x00PROXY_ALLOWED_ORIGINS=https://x/,null", ":80%zz")
	file := filepath.Join(f.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(markedSecret), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, joined, host string) {
		if strings.Contains(joined, "_FILE") || strings.Contains(joined+host, markedSecret) {
			return // do not read arbitrary files; keep the secret out of the input
		}
		environ := append(strings.Split(joined, "\x00"), "MIMECAST_CLIENT_ID="+markedSecret, "MIMECAST_CLIENT_SECRET_FILE="+file, "PROXY_API_KEY="+markedSecret,
			"HTTPS_PROXY=http://u:"+markedSecret+"@"+host)
		tryParse(t, environ)
		tryParse(t, append(environ, "MIMECAST_TOKEN_URL=https://u:"+markedSecret+"@"+host))
	})
}

func tryParse(t *testing.T, environ []string) {
	t.Helper()
	cfg, err := Parse(environ, nil)
	if text := fmt.Sprintf("%v %v %#v", err, cfg.Warnings, cfg); strings.Contains(text, markedSecret) {
		t.Fatal(text)
	}
	checkFaults(t, err)
	if err == nil && (cfg.BaseURL == nil || cfg.TokenURL == nil || len(cfg.Listen) == 0 || cfg.ReplayMemory < 0 || cfg.ReplayLimit < 0) {
		t.Fatalf("accepted %+v", cfg)
	}
	for _, w := range cfg.Warnings {
		if strings.ContainsAny(w, "\r\n") {
			t.Fatalf("%q", w)
		}
	}
}

// checkFaults checks that each error is one complete line.
func checkFaults(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || len(e.Errors) == 0 || strings.Count(e.Error(), "\n") != len(e.Errors)+len(e.Warnings)+1 {
		t.Fatalf("%q", err)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"8MiB", "512KiB", "9223372036854775807", "8388608TiB", "off", "+1", "1B", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n, again size
		if n.UnmarshalText([]byte(s)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(n.String())); err != nil || n < 0 || again != n {
			t.Fatalf("%q is %d, which is written %v and read as %d: %v", s, n, n, again, err)
		}
	})
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1:8080", ":0", "unix:/run/x.sock", "[::1]:1", "[fe80::1%eth0]:80", "[localhost]:1", "unix:", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if (err == nil) == a.IsZero() {
			t.Fatalf("%q: %+v, %v", s, a, err)
		}
		if err == nil && (a.String() != s || a.overlaps(a) != !anyPort(a)) {
			t.Fatalf("%q: %+v", s, a)
		}
	})
}

func anyPort(a Address) bool {
	_, port := a.normalized()
	return a.Network == "tcp" && port == 0
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"https://api.example/a/", "http://127.0.0.1:1", "https://u:p@h", "https://h?#", "https://us-api.mimecast.com", "//h", "http://127.0.0.1."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var e, again endpoint
		if e.UnmarshalText([]byte(s)) != nil {
			return
		}
		u := e.URL
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && !isLoopback(u.Hostname()) {
			t.Fatalf("%q: %v", s, u)
		}
		if err := again.UnmarshalText([]byte(u.String())); err != nil || again.String() != u.String() {
			t.Fatalf("%q is %v, which is %v: %v", s, u, again.URL, err)
		}
	})
}

// FuzzClientsFile checks that an accepted clients file has valid values, and that each
// error is one line without a secret.
func FuzzClientsFile(f *testing.F) {
	digest := strings.Repeat("ab", 32)
	for _, s := range []string{
		"clients:\n  a: {keys: [{file: x}, {sha256: " + digest + "}], allow: [\"@siem\"], max_requests: 3, account: b}\naccounts:\n  b: {region: uk, client_id: c, client_secret_file: y}\n",
		`{"clients": {"a": {"keys": [{"sha256": "` + digest + `"}]}}}`,
		"accounts:\n  b: {base_url: https://h/x/, token_url: http://127.0.0.1:1, client_id_file: x, client_secret_file: y}\nclients:\n  a: {keys: [{file: x}], account: b}",
		"clients: &a\n  <<: *a\n", "clients: {a: {keys: [" + markedSecret + "]}}", "---\n---\n", "---", "a: [\n{", "clients:\n  a: b: c\n", "? {a: b}\n: |\n  x\n", "\xef\xbb\xbf{}", "a: \"\\q\"",
	} {
		f.Add([]byte(s), longFuzzKey)
	}
	f.Fuzz(func(t *testing.T, content []byte, key string) {
		d, errs := parseClients("clients.yaml", content, func(string) ([]byte, error) { return []byte(key), nil })
		lines := 1 + strings.Count(string(content), "\n") + strings.Count(string(content), "\r") + strings.Count(string(content), "\u0085") + strings.Count(string(content), "\u2028") + strings.Count(string(content), "\u2029")
		for _, e := range errs {
			if text := e.String(); strings.ContainsAny(text, "\r\n") || strings.Contains(text, markedSecret) || e.line < 1 || e.line > lines {
				t.Fatalf("%q, line %d of %d", text, e.line, lines)
			}
		}
		if len(errs) == 0 {
			checkDirectory(t, d)
		}
	})
}

const longFuzzKey = "0123456789abcdef"

// checkDirectory checks the invariants of an accepted clients file.
func checkDirectory(t *testing.T, d *Directory) {
	t.Helper()
	accounts, owners := map[string]bool{"": true}, map[[sha256.Size]byte]bool{}
	for _, a := range d.Accounts {
		if accounts[a.Name] || !IsClientName(a.Name) || a.Name == DefaultAccount || a.BaseURL == nil || a.TokenURL == nil || a.ClientID.IsZero() || a.ClientSecret.IsZero() {
			t.Fatalf("account %+v", a)
		}
		accounts[a.Name] = true
	}
	names := map[string]bool{}
	for _, c := range d.Clients {
		n := len(c.Keys) + len(c.Digests)
		if names[c.Name] || !IsClientName(c.Name) || !accounts[c.Account] || n == 0 || n > maxKeys || c.MaxRequests < 0 || c.MaxRequests > maxCount || (c.AllowLine > 0) != (len(c.Allow) > 0) {
			t.Fatalf("client %+v", c)
		}
		names[c.Name] = true
		digests := slices.Clone(c.Digests)
		for _, key := range c.Keys {
			digests = append(digests, sha256.Sum256([]byte(key.Reveal())))
		}
		for _, digest := range digests {
			if owners[digest] {
				t.Fatalf("a key of %+v is there twice", c)
			}
			owners[digest] = true
		}
	}
	if len(d.Clients) == 0 || len(d.Clients) > maxClients || len(d.Accounts) > maxAccounts {
		t.Fatalf("%d clients, %d accounts", len(d.Clients), len(d.Accounts))
	}
}
