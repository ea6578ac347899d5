package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
			return // it would read whatever file it names; it would be no secret
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

// checkFaults holds every fault to one whole line.
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
