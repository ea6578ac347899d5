package config_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/config"
)

const marked = "s3cr3t-marked"

func environ(more ...string) []string {
	return append([]string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=" + marked}, more...)
}

func parse(t *testing.T, more ...string) config.Config {
	t.Helper()
	cfg, err := config.Parse(environ(more...))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreTheContracts(t *testing.T) {
	cfg := parse(t, "PROXY_ALLOW=", "MIMECAST_REGION=")
	if cfg.BaseURL.String() != "https://api.services.mimecast.com" || cfg.TokenURL.String() != "https://api.services.mimecast.com/oauth/token" ||
		cfg.Listen.String() != "127.0.0.1:8080" || cfg.Admin.String() != "127.0.0.1:9090" || cfg.SocketMode != 0o600 ||
		!cfg.APIKey.IsZero() || len(cfg.Allow) != 0 || cfg.AllowReport || !cfg.TokenStub || cfg.QuitEndpoint ||
		cfg.ReplayLimit != 8<<20 || cfg.ReplayMemory != 64<<20 || cfg.RateLimitWait != 0 || cfg.MaxRequests != 1024 ||
		cfg.DialTimeout != 10*time.Second || cfg.ResponseTimeout != 2*time.Minute || cfg.IdleTimeout != 90*time.Second ||
		cfg.ShutdownDelay != 0 || cfg.ShutdownTimeout != 25*time.Second || cfg.LogLevel != "info" || cfg.LogFormat != "auto" || cfg.Warnings != nil {
		t.Errorf("%+v", cfg)
	}
}

func TestWhatIsSetIsHeeded(t *testing.T) {
	cfg := parse(t, "MIMECAST_BASE_URL=https://gateway.example/mimecast/", "PROXY_LISTEN=unix:/run/p.sock", "PROXY_ADMIN_LISTEN=off",
		"PROXY_ALLOW=@siem, GET /x/\n@audit,,", "PROXY_ALLOW_MODE=report", "PROXY_ALLOWED_HOSTS=mimecast.internal, [::2]", "PROXY_REPLAY_LIMIT=512KiB",
		"GOMEMLIMIT=64MiB", "PROXY_ALLOWED_ORIGINS=https://Tool.example:8443", "HTTPS_PROXY=http://u:pw@proxy:3128")
	if cfg.BaseURL.String() != "https://gateway.example/mimecast" || cfg.TokenURL.String() != "https://gateway.example/mimecast/oauth/token" ||
		cfg.Listen != (config.Address{Network: "unix", Address: "/run/p.sock"}) || !cfg.Admin.IsZero() ||
		fmt.Sprint(cfg.Allow) != "[@siem GET /x/ @audit]" || !cfg.AllowReport || fmt.Sprint(cfg.AllowedHosts) != "[mimecast.internal ::2]" ||
		cfg.ReplayLimit != 512<<10 || cfg.ReplayMemory != 32<<20 || fmt.Sprint(cfg.AllowedOrigins) != "[https://tool.example:8443]" ||
		cfg.HTTPSProxy.Reveal() != "http://u:pw@proxy:3128" {
		t.Errorf("%+v", cfg)
	}
}

func TestEveryFaultIsNamedAtOnce(t *testing.T) {
	_, err := config.Parse([]string{"MIMECAST_REGION=eu", "PROXY_LISTEN=8080", "PROXY_MAX_REQUESTS=0", "PROXY_TOKEN_STUB=yes",
		"PROXY_REPLAY_LIMIT=8MB", "PROXY_DIAL_TIMEOUT=10", "PROXY_LOG_LEVEL=loud", "PROXY_SOCKET_MODE=888"})
	e, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatal(err)
	}
	var got []string
	for _, f := range e.Faults {
		got = append(got, f.Variable)
	}
	want := "[MIMECAST_CLIENT_ID MIMECAST_CLIENT_SECRET MIMECAST_REGION PROXY_LISTEN PROXY_SOCKET_MODE PROXY_TOKEN_STUB PROXY_REPLAY_LIMIT PROXY_MAX_REQUESTS PROXY_DIAL_TIMEOUT PROXY_LOG_LEVEL]"
	if fmt.Sprint(got) != want {
		t.Errorf("\n got %v\nwant %s\n%v", got, want, err)
	}
	if !strings.Contains(err.Error(), `MIMECAST_REGION: "eu" is not one of them; accepted: global, us or uk`) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	for variables, says := range map[string]string{
		"MIMECAST_CLIENT_SECRET_FILE=/nowhere":                                   "set together with MIMECAST_CLIENT_SECRET_FILE",
		"MIMECAST_BASE_URL=https://api.services.mimecast.com MIMECAST_REGION=us": "set one of them",
		"MIMECAST_BASE_URL=http://api.example":                                   "in the clear",
		"MIMECAST_BASE_URL=ftp://api.example":                                    `scheme "ftp"`,
		"MIMECAST_BASE_URL=api.example":                                          "not an absolute URL",
		"MIMECAST_BASE_URL=https://user:" + marked + "@api.example":              "user name or password",
		"MIMECAST_BASE_URL=https://api.example?a=b":                              "query",
		"MIMECAST_BASE_URL=https://eu-api.mimecast.com":                          "the API 2.0 is at https://api.services.mimecast.com (MIMECAST_REGION=global)",
		"MIMECAST_BASE_URL=https://US-API.mimecast.com":                          "MIMECAST_REGION=us",
		"MIMECAST_TOKEN_URL=https://api.mimecast.com/oauth/token":                "API 1.0",
		"MIMECAST_CA_FILE=/nowhere":                                              "no such file",
		"PROXY_LISTEN=0.0.0.0:8080":                                              "PROXY_TRUST_NETWORK=true",
		"PROXY_LISTEN=:8080":                                                     "PROXY_API_KEY",
		"PROXY_LISTEN=unix:relative":                                             "absolute path",
		"PROXY_LISTEN=localhost:":                                                "not an address",
		"PROXY_LISTEN=localhost:99999":                                           "not an address",
		"PROXY_ADMIN_LISTEN=127.0.0.1:8080":                                      "PROXY_LISTEN's too",
		"PROXY_API_KEY_FILE=/nowhere":                                            "no such file",
		"PROXY_ALLOWED_HOSTS=http://x":                                           "bare host name",
		"PROXY_ALLOWED_HOSTS=x:80":                                               "bare host name",
		"PROXY_ALLOWED_ORIGINS=*":                                                "each must be named",
		"PROXY_ALLOWED_ORIGINS=https://x/path":                                   "not an origin",
		"PROXY_SHUTDOWN_TIMEOUT=-1s":                                             "too short",
		"PROXY_REPLAY_LIMIT=9999999999GiB":                                       "not a size",
	} {
		_, err := config.Parse(environ(strings.Split(variables, " ")...))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", variables, err)
		}
		if err != nil && strings.Contains(err.Error(), marked) {
			t.Errorf("%s: the error leaks: %v", variables, err)
		}
	}
}

func TestLoopbackAndKeyedAddressesAreAccepted(t *testing.T) {
	for _, variables := range []string{
		"PROXY_LISTEN=localhost:1", "PROXY_LISTEN=[::1]:1", "PROXY_LISTEN=127.1.2.3:0", "PROXY_LISTEN=unix:/x",
		"PROXY_LISTEN=:8080 PROXY_API_KEY=k", "PROXY_LISTEN=0.0.0.0:8080 PROXY_TRUST_NETWORK=true",
		"MIMECAST_BASE_URL=http://127.0.0.1:9999", "MIMECAST_BASE_URL=http://[::1]:9999", "PROXY_LISTEN=127.0.0.1:0 PROXY_ADMIN_LISTEN=127.0.0.1:0",
	} {
		if _, err := config.Parse(environ(strings.Split(variables, " ")...)); err != nil {
			t.Errorf("%s: %v", variables, err)
		}
	}
}

func TestSecretFileIsReadEachTime(t *testing.T) {
	path := write(t, "first\r\n")
	cfg, err := config.Parse([]string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET_FILE=" + path})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second"} {
		if got, err := cfg.ClientSecret.Read(); err != nil || got.Reveal() != want {
			t.Errorf("%q, %v", got.Reveal(), err)
		}
		if err := os.WriteFile(path, []byte("second\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.ClientSecret.Read(); err == nil || !strings.Contains(err.Error(), "MIMECAST_CLIENT_SECRET_FILE") {
		t.Errorf("%v", err)
	}
}

func TestUnusableSecretFiles(t *testing.T) {
	for content, says := range map[string]string{
		"": "is empty", "\n": "is empty", marked + "\n\n": "control character", marked + "\x00": "control character",
		" " + marked: "space", strings.Repeat("x", 70_000): "more than",
	} {
		_, err := config.Parse([]string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET_FILE=" + write(t, content)})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), marked) {
			t.Errorf("%.20q: %v", content, err)
		}
	}
}

func TestAuthoritiesAreRead(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	content := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	if cfg := parse(t, "MIMECAST_CA_FILE="+write(t, content)); string(cfg.CAPEM) != content {
		t.Errorf("%q", cfg.CAPEM)
	}
	if _, err := config.Parse(environ("MIMECAST_CA_FILE=" + write(t, "no PEM"))); err == nil {
		t.Error("a file without a certificate was accepted")
	}
}

func TestUnknownNamesDrawAWarning(t *testing.T) {
	cfg := parse(t, "MIMECAST_CLIENT_SECRT="+marked, "PROXY_LISTN=x", "PROXY_ZZZZZZZZZZZZ=1", "MIMECAST_PROXY_URL=x",
		"PROXY_SERVICE_HOST=10.0.0.1", "PROXY_PORT_8080_TCP=tcp://10.0.0.1", "PROXY_PORT=tcp://10.0.0.1", "PROXY_API_KEY_FIL=x")
	got := strings.Join(cfg.Warnings, "\n")
	want := "MIMECAST_CLIENT_SECRT is not a variable of this program and is ignored; did you mean MIMECAST_CLIENT_SECRET?\n" +
		"PROXY_API_KEY_FIL is not a variable of this program and is ignored; did you mean PROXY_API_KEY_FILE?\n" +
		"PROXY_LISTN is not a variable of this program and is ignored; did you mean PROXY_LISTEN?\n" +
		"PROXY_ZZZZZZZZZZZZ is not a variable of this program and is ignored"
	if got != want {
		t.Errorf("\n%s", got)
	}
}

func TestNoPrinterShowsASecret(t *testing.T) {
	cfg := parse(t, "PROXY_API_KEY="+marked, "HTTPS_PROXY=http://u:"+marked+"@p")
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, b); strings.Contains(all, marked) {
		t.Error(all)
	}
}

func TestHelpNamesEveryVariable(t *testing.T) {
	var help strings.Builder
	if err := config.WriteHelp(&help); err != nil {
		t.Fatal(err)
	}
	for _, v := range config.Variables() {
		if v.Name == "" || v.Help == "" || !strings.Contains(help.String(), "  "+v.Name) || !strings.Contains(config.Markdown(), "| `"+v.Name+"`") {
			t.Errorf("%+v", v)
		}
	}
	for line := range strings.Lines(help.String()) {
		if len(line) > 100 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

func TestAdminAddressNeedsNothingElse(t *testing.T) {
	if a, err := config.AdminAddress([]string{"PROXY_ADMIN_LISTEN=0.0.0.0:19090"}); err != nil || a.Address != "0.0.0.0:19090" {
		t.Errorf("%v, %v", a, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("PROXY_LISTEN=unix:/x\x00PROXY_ALLOW=a,b\x00GOMEMLIMIT=1")
	f.Add("MIMECAST_BASE_URL=https://u:p@h:1/?#\x00PROXY_ALLOWED_HOSTS=[::1],*")
	f.Fuzz(func(t *testing.T, joined string) {
		if strings.Contains(joined, "_FILE") {
			return // reads whatever file it names
		}
		cfg, err := config.Parse(environ(strings.Split(joined, "\x00")...))
		if text := fmt.Sprint(err, cfg.Warnings); strings.Contains(text, marked) && !strings.Contains(joined, marked) {
			t.Fatal(text)
		}
		if err == nil && (cfg.BaseURL == nil || cfg.TokenURL == nil || cfg.Listen.IsZero() || cfg.ReplayMemory < 0) {
			t.Fatalf("accepted %+v", cfg)
		}
	})
}
