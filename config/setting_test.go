package config_test

import (
	"strconv"
	"strings"
	"testing"

	"mimecast-proxy/config"
)

// setting returns the current value of one variable, and its origin.
func setting(cfg config.Config, name string) string {
	for _, s := range cfg.Settings() {
		if s.Name == name {
			return s.Value + " | " + s.Origin
		}
	}
	return "missing"
}

func TestSettingsHaveEveryVariableWithItsOrigin(t *testing.T) {
	cfg := parse(t)
	var names, manual []string
	for _, s := range cfg.Settings() {
		names = append(names, s.Name)
		if s.Value == "" || s.Origin == "" {
			t.Errorf("%+v", s)
		}
	}
	for _, v := range config.Variables() {
		manual = append(manual, v.Name)
	}
	equal(t, "names", names, manual)
	for name, want := range map[string]string{
		"MIMECAST_REGION": "global | default", "MIMECAST_BASE_URL": "https://api.services.mimecast.com | default",
		"MIMECAST_TOKEN_URL": "https://api.services.mimecast.com/oauth/token | default", "PROXY_LISTEN": "127.0.0.1:8080 | default",
		"PROXY_REPLAY_MEMORY": "64MiB | default", "GOMEMLIMIT": "none | default", "PROXY_API_KEY": "none | default", "HTTPS_PROXY": "none | default",
	} {
		equal(t, name, setting(cfg, name), want)
	}
}

func TestSettingsSayWhereAValueComesFromAndNoSecret(t *testing.T) {
	secretFile, keyFile := write(t, marked+"\r\n"), write(t, marked+"\nanother-"+marked+"\n")
	cfg := parse(t, "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+secretFile, "PROXY_API_KEY_FILE="+keyFile, "https_proxy=http://"+marked+":"+marked+"@proxy.example:3128",
		"PROXY_LOG_LEVEL=debug", "MIMECAST_BASE_URL=https://gateway.example", "GOMEMLIMIT=64MiB", "PROXY_MAX_REQUESTS=")
	for name, want := range map[string]string{
		"MIMECAST_CLIENT_SECRET": "set, " + strconv.Itoa(len(marked)) + " characters | file " + secretFile,
		"PROXY_API_KEY":          "set, 2 keys | file " + keyFile,
		"HTTPS_PROXY":            "http://[redacted]@proxy.example:3128 | variable",
		"PROXY_LOG_LEVEL":        "debug | variable",
		"MIMECAST_REGION":        "none, since MIMECAST_BASE_URL is set | default",
		"MIMECAST_BASE_URL":      "https://gateway.example | variable",
		"MIMECAST_TOKEN_URL":     "https://gateway.example/oauth/token | default",
		"GOMEMLIMIT":             "64MiB | variable",
		"PROXY_REPLAY_MEMORY":    "32MiB | default",
		"PROXY_MAX_REQUESTS":     "1024 | default",
	} {
		equal(t, name, setting(cfg, name), want)
	}
	for _, s := range cfg.Settings() {
		if strings.Contains(s.Value+s.Origin, marked) {
			t.Errorf("a secret shows: %+v", s)
		}
	}
	if got := setting(parse(t, "HTTPS_PROXY="+"u:"+marked+"@proxy:1"), "HTTPS_PROXY"); got != "http://[redacted]@proxy:1 | variable" {
		t.Error(got)
	}
}
