package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http/httpproxy"

	"mimecast-proxy/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const marked = "s3cr3t-marked"

// environ returns an environment with the required variables and more.
func environ(more ...string) []string {
	return append([]string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET=" + marked}, more...)
}

func parse(t *testing.T, more ...string) config.Config {
	t.Helper()
	cfg, err := config.Parse(environ(more...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// faults returns the errors of an environment, one per line, without the surrounding
// text.
func faults(t *testing.T, environ []string) []string {
	t.Helper()
	_, err := config.Parse(environ, nil)
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	if strings.Contains(err.Error(), marked) {
		t.Errorf("the error leaks: %v", err)
	}
	lines := make([]string, 0, len(e.Errors))
	for _, f := range e.Errors {
		if f.Variable == "" || f.Found == "" || f.Accepted == "" || strings.ContainsAny(f.String(), "\r\n") {
			t.Errorf("half a fault: %+v", f)
		}
		lines = append(lines, f.String())
	}
	return lines
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestDefaultsAreTheContracts(t *testing.T) {
	cfg := parse(t)
	base := "https://api.services.mimecast.com"
	equal(t, "base", cfg.BaseURL.String(), base)
	equal(t, "token URL", cfg.TokenURL.String(), base+"/oauth/token")
	cfg.BaseURL, cfg.TokenURL, cfg.ClientID, cfg.ClientSecret = nil, nil, config.Credential{}, config.Credential{}
	cfg.HTTPSProxy, cfg.HTTPProxy = config.Config{}.HTTPSProxy, config.Config{}.HTTPProxy // funcs cannot be compared
	equal(t, "rest", cfg, config.Config{
		Region: "global", Listen: []config.Address{{Network: "tcp", Address: "127.0.0.1:8080"}},
		Admin: config.Address{Network: "tcp", Address: "127.0.0.1:9090"}, SocketMode: 0o600, TokenStub: true,
		ReplayLimit: 8 << 20, ReplayMemory: 64 << 20, RateLimitPace: "off", MaxRequests: 1024, MaxConnections: 128, MaxHeaderBytes: 16 << 10, MaxHeaderFields: 200,
		DialTimeout: 10 * time.Second, ResponseTimeout: 2 * time.Minute, IdleTimeout: 90 * time.Second,
		ShutdownTimeout: 25 * time.Second, LogLevel: "info", LogFormat: "auto",
	})
}

// listen returns the parsed PROXY_LISTEN as text.
func listen(cfg config.Config) string {
	var all []string
	for _, a := range cfg.Listen {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

func TestSeveralAddressesToListenAt(t *testing.T) {
	for variable, want := range map[string]string{
		"127.0.0.1:8080,[::1]:8080":                "127.0.0.1:8080 [::1]:8080",
		" [::1]:0 , 127.0.0.1:0,127.0.0.1:0,":      "[::1]:0 127.0.0.1:0 127.0.0.1:0",
		"unix:/a.sock,127.0.0.1:8080,unix:/b.sock": "unix:/a.sock 127.0.0.1:8080 unix:/b.sock",
		"localhost:8080\n[::1]:8080":               "localhost:8080 [::1]:8080",
		"127.0.0.1:8080,127.0.0.1:8081,[::1]:9090": "127.0.0.1:8080 127.0.0.1:8081 [::1]:9090",
	} {
		equal(t, variable, listen(parse(t, "PROXY_LISTEN="+strings.ReplaceAll(variable, `\n`, "\n"))), want)
	}
	equal(t, "with a key", listen(parse(t, "PROXY_LISTEN=127.0.0.1:8080,10.0.0.1:8080", "PROXY_API_KEY="+strings.Repeat("k", 32))), "127.0.0.1:8080 10.0.0.1:8080")
}

func TestEveryVariableIsHeeded(t *testing.T) {
	for variable, want := range map[string]any{
		"PROXY_LISTEN=unix:/p.sock":                                  "unix:/p.sock",
		"PROXY_SOCKET_MODE=0660":                                     "-rw-rw----",
		"PROXY_ADMIN_LISTEN=OFF":                                     "",
		"PROXY_TRUST_NETWORK=1":                                      true,
		"PROXY_ALLOWED_HOSTS=Mimecast.Internal., [0:0::2],,10.0.0.1": []string{"mimecast.internal", "::2", "10.0.0.1"},
		"PROXY_ALLOWED_ORIGINS=https://Tool.example:443, http://[::1]:80, http://x:443": []string{"https://tool.example", "http://[::1]", "http://x:443"},
		"PROXY_ALLOW=@siem  ,\tGET /x/ \r\n\n@audit,,":                                  []string{"@siem", "GET /x/", "@audit"},
		"PROXY_ALLOW_MODE=Report":                                                       true,
		"PROXY_TOKEN_STUB=f":                                                            false,
		"PROXY_QUIT_ENDPOINT=TRUE":                                                      true,
		"PROXY_REPLAY_LIMIT=0":                                                          int64(0),
		"PROXY_REPLAY_MEMORY=1GiB":                                                      int64(1 << 30),
		"PROXY_RATE_LIMIT_WAIT=1m30s":                                                   90 * time.Second,
		"PROXY_MAX_REQUESTS=7":                                                          7,
		"PROXY_MAX_CONNECTIONS=9":                                                       9,
		"PROXY_MAX_HEADER_BYTES=64KiB":                                                  64 << 10,
		"PROXY_MAX_HEADER_FIELDS=500":                                                   500,
		"GOMEMLIMIT=48MiB":                                                              int64(48 << 20),
		"PROXY_DIAL_TIMEOUT=1ms":                                                        time.Millisecond,
		"PROXY_RESPONSE_TIMEOUT=1h":                                                     time.Hour,
		"PROXY_IDLE_TIMEOUT=1s":                                                         time.Second,
		"PROXY_SHUTDOWN_DELAY=5s":                                                       5 * time.Second,
		"PROXY_SHUTDOWN_TIMEOUT=55s":                                                    55 * time.Second,
		"PROXY_LOG_LEVEL=WARN":                                                          "warn",
		"PROXY_LOG_FORMAT=json":                                                         "json",
		"MIMECAST_REGION=UK":                                                            "https://uk-api.services.mimecast.com",
		"MIMECAST_BASE_URL=https://Gateway.example/mimecast/":                           "https://gateway.example/mimecast",
		"MIMECAST_TOKEN_URL=https://id.example:444/t":                                   "https://id.example:444/t",
		"NO_PROXY=.example":                                                             ".example",
		"HTTPS_PROXY=http://u:pw@proxy:3128":                                            "http://u:pw@proxy:3128",
		"PROXY_API_KEY=k":                                                               "PROXY_API_KEY",
	} {
		cfg := parse(t, variable)
		name, _, _ := strings.Cut(variable, "=")
		got, ok := map[string]any{
			"PROXY_LISTEN": listen(cfg), "PROXY_SOCKET_MODE": cfg.SocketMode.String(), "PROXY_ADMIN_LISTEN": cfg.Admin.String(),
			"PROXY_TRUST_NETWORK": cfg.TrustNetwork, "PROXY_ALLOWED_HOSTS": cfg.AllowedHosts, "PROXY_ALLOWED_ORIGINS": cfg.AllowedOrigins,
			"PROXY_ALLOW": cfg.Allow, "PROXY_ALLOW_MODE": cfg.AllowReport, "PROXY_TOKEN_STUB": cfg.TokenStub,
			"PROXY_QUIT_ENDPOINT": cfg.QuitEndpoint, "PROXY_REPLAY_LIMIT": cfg.ReplayLimit, "PROXY_REPLAY_MEMORY": cfg.ReplayMemory,
			"PROXY_RATE_LIMIT_WAIT": cfg.RateLimitWait, "PROXY_MAX_REQUESTS": cfg.MaxRequests, "PROXY_DIAL_TIMEOUT": cfg.DialTimeout,
			"PROXY_RESPONSE_TIMEOUT": cfg.ResponseTimeout, "PROXY_IDLE_TIMEOUT": cfg.IdleTimeout, "PROXY_SHUTDOWN_DELAY": cfg.ShutdownDelay,
			"PROXY_SHUTDOWN_TIMEOUT": cfg.ShutdownTimeout, "PROXY_LOG_LEVEL": cfg.LogLevel, "PROXY_LOG_FORMAT": cfg.LogFormat,
			"PROXY_MAX_CONNECTIONS": cfg.MaxConnections, "PROXY_MAX_HEADER_BYTES": cfg.MaxHeaderBytes, "PROXY_MAX_HEADER_FIELDS": cfg.MaxHeaderFields, "GOMEMLIMIT": cfg.MemoryLimit,
			"MIMECAST_REGION": cfg.BaseURL.String(), "MIMECAST_BASE_URL": cfg.BaseURL.String(), "MIMECAST_TOKEN_URL": cfg.TokenURL.String(),
			"NO_PROXY": cfg.NoProxy, "HTTPS_PROXY": cfg.HTTPSProxy.Reveal(), "PROXY_API_KEY": cfg.APIKey.Variable(),
		}[name]
		if !ok {
			t.Errorf("%s is not looked at", name)
		}
		equal(t, variable, got, want)
	}
}

func TestTokenURLFollowsTheBaseURL(t *testing.T) {
	cfg := parse(t, "MIMECAST_BASE_URL=https://gateway.example/a%2Fb/")
	equal(t, "token URL", cfg.TokenURL.String(), "https://gateway.example/a%2Fb/oauth/token")
	equal(t, "region", cfg.Region, "")
}

func TestEmptyCountsAsNotSet(t *testing.T) {
	all := environ()
	for _, v := range config.Variables() {
		if !v.Required {
			all = append(all, v.Name+"=")
		}
		if v.File {
			all = append(all, v.Name+"_FILE=")
		}
	}
	cfg, err := config.Parse(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "listen", listen(cfg), "127.0.0.1:8080")
	equal(t, "key", cfg.APIKey.IsZero(), true)
	equal(t, "warnings", cfg.Warnings, []string{"PROXY_API_KEY is set, but empty, which counts as not set"})
}

func TestLastOfTwoCounts(t *testing.T) {
	cfg := parse(t, "PROXY_LOG_LEVEL=warn", "PROXY_LOG_LEVEL=debug", "PROXY_MAX_REQUESTS=1", "PROXY_MAX_REQUESTS=")
	equal(t, "level", cfg.LogLevel, "debug")
	equal(t, "requests", cfg.MaxRequests, 1024)
}

func TestEveryFaultIsNamedAtOnceInTheManualsOrder(t *testing.T) {
	bad := []string{"PROXY_LOG_FORMAT=xml", "PROXY_LOG_LEVEL=loud", "PROXY_DIAL_TIMEOUT=10", "MIMECAST_REGION=eu", "PROXY_MAX_REQUESTS=0", "PROXY_TOKEN_STUB=yes",
		"PROXY_REPLAY_LIMIT=8MB", "PROXY_SOCKET_MODE=888", "PROXY_LISTEN=0.0.0.0:80", "PROXY_API_KEY_FILE=/nowhere", "MIMECAST_BASE_URL=x", "PROXY_ALLOWED_HOSTS=a:1,b,c/d"}
	want := []string{
		"MIMECAST_CLIENT_ID: not set; accepted: the value that the Administration Console shows once, when you create the API 2.0 application; or set MIMECAST_CLIENT_ID_FILE to a file that contains it",
		"MIMECAST_CLIENT_SECRET: not set; accepted: the value that the Administration Console shows once, when you create the API 2.0 application; or set MIMECAST_CLIENT_SECRET_FILE to a file that contains it",
		`MIMECAST_REGION: "eu" is not one of them; accepted: global, us or uk`,
		`MIMECAST_BASE_URL: "x" is not an absolute URL; accepted: an https URL without user, query or fragment; http only to a loopback address`,
		"MIMECAST_BASE_URL: set together with MIMECAST_REGION; accepted: one of the two",
		`PROXY_SOCKET_MODE: "888" is not an octal number; accepted: an octal mode from 0600 to 0777`,
		`PROXY_API_KEY_FILE: the file "/nowhere" cannot be read: no such file or directory; accepted: the path of a regular file that contains only the value, of at most 64KiB`,
		`PROXY_ALLOWED_HOSTS: "a:1" contains more than a name; accepted: a`,
		`PROXY_ALLOWED_HOSTS: "c/d" contains more than a name; accepted: c`,
		`PROXY_TOKEN_STUB: "yes" is neither; accepted: true or false`,
		`PROXY_REPLAY_LIMIT: "8MB" is not a size; accepted: a size such as 8MiB, 512KiB or 65536`,
		`PROXY_MAX_REQUESTS: "0" is out of range; accepted: a number from 1 to 1000000`,
		`PROXY_DIAL_TIMEOUT: "10" has no unit; accepted: a duration from 1ms`,
		`PROXY_LOG_LEVEL: "loud" is not one of them; accepted: trace, debug, info, warn or error`,
		`PROXY_LOG_FORMAT: "xml" is not one of them; accepted: auto, console, json or gcp`,
	}
	for range 3 { // the order must not depend on map iteration
		equal(t, "faults", strings.Join(faults(t, bad), "\n"), strings.Join(want, "\n"))
	}
}

func TestErrorHasALineAFaultAndWhatMayExplainIt(t *testing.T) {
	_, err := config.Parse([]string{"MIMECAST_CLIENT_ID=x", "MIMECAST_CLIENT_SECRT=" + marked, "PROXY_MAX_REQUESTS=many"}, nil)
	if err == nil {
		t.Fatal("no error")
	}
	want := "the configuration cannot be used:\n" +
		"  MIMECAST_CLIENT_SECRET: not set; accepted: the value that the Administration Console shows once, when you create the API 2.0 application; or set MIMECAST_CLIENT_SECRET_FILE to a file that contains it\n" +
		"  PROXY_MAX_REQUESTS: \"many\" is not a whole number; accepted: a number from 1 to 1000000\n" +
		"  note: MIMECAST_CLIENT_SECRT is not a variable of this program and is ignored; did you mean MIMECAST_CLIENT_SECRET?\n" +
		"See mimecast-proxy help for every variable."
	equal(t, "error", err.Error(), want)
}

func TestFaults(t *testing.T) {
	for variables, says := range map[string]string{
		"MIMECAST_CLIENT_SECRET_FILE=/nowhere": "MIMECAST_CLIENT_SECRET: set together with MIMECAST_CLIENT_SECRET_FILE",
		"MIMECAST_CLIENT_ID=":                  "MIMECAST_CLIENT_ID: set, but empty",
		"PROXY_API_KEY=a\nb":                   "PROXY_API_KEY: its value has a control character",
		"MIMECAST_BASE_URL=https://api.services.mimecast.com|MIMECAST_REGION=us": "one of the two",
		"MIMECAST_BASE_URL=http://api.example":                                   `"http://api.example" would send the credentials over the network in the clear`,
		"MIMECAST_BASE_URL=http://localhost.example":                             "in the clear",
		"MIMECAST_BASE_URL=http://2130706433":                                    "in the clear",
		"MIMECAST_BASE_URL=http://127.0.0.17.":                                   "in the clear",
		"MIMECAST_BASE_URL=http://localhost.":                                    "in the clear",
		"MIMECAST_BASE_URL=ftp://api.example":                                    "a scheme other than https",
		"MIMECAST_BASE_URL=//api.example":                                        "not an absolute URL",
		"MIMECAST_BASE_URL=https:api.example":                                    "not an absolute URL",
		"MIMECAST_BASE_URL=https://:443":                                         "not an absolute URL",
		"MIMECAST_BASE_URL=https://x:99999":                                      "an invalid port",
		"MIMECAST_BASE_URL=https://x:":                                           "an invalid port",
		"MIMECAST_BASE_URL=https://u:" + marked + "@api.example":                 `"https://[redacted]@api.example" contains a user name or password`,
		"MIMECAST_BASE_URL=u:" + marked + "@api.example":                         `"[redacted]@api.example" is not an absolute URL`,
		"MIMECAST_BASE_URL=https://%zz" + marked + "@api.example":                "not an absolute URL",
		"MIMECAST_BASE_URL=https://api.example?k=" + marked:                      `"https://api.example?[redacted]" has a query or a fragment`,
		"MIMECAST_BASE_URL=https://api.example/#":                                "query or a fragment",
		"MIMECAST_BASE_URL=https://eu-api.mimecast.com":                          "API 1.0 host, which accepts no bearer token; accepted: the API 2.0 at https://api.services.mimecast.com, which is MIMECAST_REGION=global",
		"MIMECAST_BASE_URL=https://sandbox-api.mimecast.com/":                    "MIMECAST_REGION=global",
		"MIMECAST_BASE_URL=https://US-API.mimecast.com.":                         "https://us-api.services.mimecast.com, which is MIMECAST_REGION=us",
		"MIMECAST_BASE_URL=http://usb-api.mimecast.com":                          "MIMECAST_REGION=us",
		"MIMECAST_BASE_URL=https://uk-api.mimecast.com:443":                      "MIMECAST_REGION=uk",
		"MIMECAST_TOKEN_URL=https://api.mimecast.com/oauth/token":                "MIMECAST_TOKEN_URL: ",
		"MIMECAST_TOKEN_URL=http://api.example/oauth/token":                      "in the clear",
		"MIMECAST_BASE_URL=http://localhost:8080":                                "is the proxy's own address, so requests would loop",
		"MIMECAST_CA_FILE=/nowhere":                                              "no such file",
		"MIMECAST_CA_FILE=/":                                                     "not a regular file",
		"PROXY_LISTEN=0.0.0.0:8080":                                              "or PROXY_TRUST_NETWORK=true",
		"PROXY_LISTEN=:8080":                                                     "PROXY_API_KEY_FILE",
		"PROXY_LISTEN=:8080|PROXY_API_KEY=":                                      "is open to other machines",
		"PROXY_LISTEN=:8080|PROXY_TRUST_NETWORK=false":                           "is open to other machines",
		"PROXY_LISTEN=:8080|PROXY_LOG_LEVEL=x":                                   "is open to other machines",
		"PROXY_LISTEN=proxy.internal:8080":                                       "is open to other machines",
		"PROXY_LISTEN=8080":                                                      "not an address",
		"PROXY_LISTEN=http://127.0.0.1:8080":                                     "not an address",
		"PROXY_LISTEN=::1:8080":                                                  "not an address",
		"PROXY_LISTEN=*:8080":                                                    "no host name or IP address",
		"PROXY_LISTEN=localhost:":                                                "no port",
		"PROXY_LISTEN=localhost:http":                                            "no port",
		"PROXY_LISTEN=localhost:99999":                                           "no port",
		"PROXY_LISTEN=unix:relative":                                             "absolute path",
		"PROXY_LISTEN=unix:":                                                     "absolute path",
		"PROXY_LISTEN=unix:/" + strings.Repeat("x", 107):                         "too long for a socket",
		"PROXY_ADMIN_LISTEN=no":                                                  "not an address",
		"PROXY_ADMIN_LISTEN=localhost:08080":                                     "overlaps with PROXY_LISTEN",
		"PROXY_ADMIN_LISTEN=:8080":                                               "overlaps with PROXY_LISTEN",
		"PROXY_ADMIN_LISTEN=0.0.0.0:8080":                                        "overlaps with PROXY_LISTEN",
		"PROXY_LISTEN=unix:/x|PROXY_ADMIN_LISTEN=unix:/./x":                      "overlaps with PROXY_LISTEN",
		"PROXY_LISTEN=unix:/no/such/dir/s":                                       `is in the directory "/no/such/dir", which does not exist`,
		"PROXY_ADMIN_LISTEN=unix:/no/such/dir/s":                                 `PROXY_ADMIN_LISTEN: "unix:/no/such/dir/s" is in the directory "/no/such/dir", which does not exist`,
		"PROXY_MAX_CONNECTIONS=0":                                                "out of range",
		"PROXY_MAX_HEADER_BYTES=1":                                               "out of range",
		"PROXY_MAX_HEADER_BYTES=2MiB":                                            "out of range",
		"PROXY_MAX_HEADER_FIELDS=0":                                              "out of range",
		"GOMEMLIMIT=64MB":                                                        "not a size",
		"GODEBUG=http2debug=2":                                                   "GODEBUG: http2debug makes Go log tokens, headers and bodies",
		"GODEBUG=netdns=go,http2debug=1":                                         "makes Go log tokens",
		"GODEBUG=http2debug=0,http2debug=10":                                     "makes Go log tokens",
		"GODEBUG=xhttp2debug=1":                                                  "makes Go log tokens", // Go searches the whole text
		"MIMECAST_BASE_URL=https://api.services.mimecast.com/oauth/token":        "is the URL of the token endpoint; accepted: https://api.services.mimecast.com",
		"MIMECAST_BASE_URL=https://gateway.example/a/OAuth/Token/":               "accepted: https://gateway.example/a",
		"PROXY_ALLOWED_HOSTS=https://tool.example:80/x":                          "accepted: tool.example",
		"PROXY_ALLOWED_HOSTS=*.example":                                          "only * alone is allowed",
		"PROXY_ALLOWED_HOSTS=a b":                                                "not a host name",
		"PROXY_ALLOWED_HOSTS=u:" + marked + "@x":                                 "not a host name",
		"PROXY_ALLOWED_ORIGINS=*":                                                "any web page",
		"PROXY_ALLOWED_ORIGINS=null":                                             "any web page",
		"PROXY_ALLOWED_ORIGINS=tool.example":                                     "not an origin",
		"PROXY_ALLOWED_ORIGINS=file:///x":                                        "not an origin",
		"PROXY_ALLOWED_ORIGINS=https://x:0":                                      "not an origin",
		"PROXY_ALLOWED_ORIGINS=https://x:80/path":                                "accepted: https://x:80",
		"PROXY_ALLOWED_ORIGINS=https://x/":                                       "accepted: https://x",
		"PROXY_SHUTDOWN_TIMEOUT=-1s":                                             "too short",
		"PROXY_SHUTDOWN_TIMEOUT=0s":                                              "too short",
		"PROXY_RESPONSE_TIMEOUT=0":                                               "too short",
		"PROXY_SHUTDOWN_DELAY=-1s":                                               "negative",
		"PROXY_RATE_LIMIT_WAIT=soon":                                             "not a duration",
		"PROXY_REPLAY_LIMIT=9999999999GiB":                                       "too large",
		"PROXY_REPLAY_LIMIT=99999999999999999999":                                "too large",
		"PROXY_REPLAY_MEMORY=-1":                                                 "not a size",
		"PROXY_MAX_REQUESTS=1000001":                                             "out of range",
		"PROXY_MAX_REQUESTS=99999999999999999999":                                "out of range",
		"PROXY_SOCKET_MODE=0444":                                                 "out of range",
		"PROXY_SOCKET_MODE=1777":                                                 "out of range",
		"PROXY_LOG_LEVEL=" + strings.Repeat("x", 5000):                           `xxx..."`,
		"PROXY_LOG_LEVEL=info\r":                                                 `"info\r"`,
	} {
		if got := faults(t, environ(strings.Split(variables, "|")...)); !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, says) && len(f) < 600 }) {
			t.Errorf("%.100s:\n got %q\nwant %q", variables, got, says)
		}
	}
}

func TestFaultsOfSeveralAddresses(t *testing.T) {
	for variables, says := range map[string]string{
		"PROXY_LISTEN=127.0.0.1:8080,0.0.0.0:8081":                                 `"0.0.0.0:8081" is open to other machines`,
		"PROXY_LISTEN=[::1]:8080,192.0.2.1:8080":                                   `"192.0.2.1:8080" is open to other machines`,
		"PROXY_LISTEN=127.0.0.1:8080,localhost:8080":                               `"localhost:8080" overlaps with "127.0.0.1:8080"`,
		"PROXY_LISTEN=[::1]:8080,[0::1]:08080":                                     `"[0::1]:08080" overlaps with "[::1]:8080"`,
		"PROXY_LISTEN=0.0.0.0:80,[::1]:80|PROXY_TRUST_NETWORK=1":                   `"[::1]:80" overlaps with "0.0.0.0:80"`,
		"PROXY_LISTEN=127.0.0.1:80,:80|PROXY_TRUST_NETWORK=1":                      `":80" overlaps with "127.0.0.1:80"`,
		"PROXY_LISTEN=unix:/x,127.0.0.1:80,unix:/./x":                              `"unix:/./x" overlaps with "unix:/x"`,
		"PROXY_LISTEN=127.0.0.1:80,[::1]:9090|PROXY_ADMIN_LISTEN=[::1]:9090":       "overlaps with PROXY_LISTEN",
		"PROXY_LISTEN=127.0.0.1:80,nonsense":                                       `"nonsense" is not an address`,
		"PROXY_LISTEN=127.0.0.1:x,127.0.0.1:80":                                    `"127.0.0.1:x" has no port`,
		"PROXY_LISTEN=unix:/a,b":                                                   `"b" is not an address`,
		"PROXY_LISTEN= , ":                                                         "has no address in it",
		"PROXY_LISTEN=127.0.0.1:80,unix:/no/such/dir/s":                            "which does not exist",
		"MIMECAST_BASE_URL=http://[::1]:8080|PROXY_LISTEN=127.0.0.1:80,[::1]:8080": "requests would loop",
	} {
		if got := faults(t, environ(strings.Split(variables, "|")...)); !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, says) }) {
			t.Errorf("%s:\n got %q\nwant %q", variables, got, says)
		}
	}
}

func TestWhatIsSafeIsAccepted(t *testing.T) {
	for _, variables := range []string{
		"PROXY_LISTEN=localhost:1", "PROXY_LISTEN=[::1]:1", "PROXY_LISTEN=127.1.2.3:0", "PROXY_LISTEN=unix:/x",
		"PROXY_LISTEN=:8080 PROXY_API_KEY=k", "PROXY_LISTEN=0.0.0.0:8080 PROXY_TRUST_NETWORK=true", "PROXY_ADMIN_LISTEN=0.0.0.0:19090",
		"MIMECAST_BASE_URL=http://127.0.0.1:9999", "MIMECAST_BASE_URL=http://[::1]:9999", "MIMECAST_BASE_URL=http://LOCALHOST:1",
		"PROXY_LISTEN=127.0.0.1:0 PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LISTEN=127.0.0.1:8080 PROXY_ADMIN_LISTEN=[::1]:8080",
		"PROXY_ALLOWED_HOSTS=*", "MIMECAST_BASE_URL=https://mimecast.com",
	} {
		if got := faults(t, environ(strings.Split(variables, " ")...)); got != nil {
			t.Errorf("%s: %q", variables, got)
		}
	}
}

func certificate(srv *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

func TestAuthoritiesAreRead(t *testing.T) {
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	content := certificate(srv)
	for _, content := range []string{content, "\ufeff" + content, strings.ReplaceAll(content, "\n", "\r\n"), "# caf\xe9\n" + content + "junk\n" + content} {
		all := parse(t, "MIMECAST_CA_FILE="+write(t, content)).CA.Certificates()
		if len(all) != strings.Count(content, "BEGIN") || !all[0].Equal(srv.Certificate()) {
			t.Errorf("%d certificates of\n%s", len(all), content)
		}
	}
	got := faults(t, environ("MIMECAST_CA_FILE="+write(t, marked)))
	if len(got) != 1 || !strings.Contains(got[0], "has no certificate in it; accepted: a file with certificates in PEM form") {
		t.Errorf("%q", got)
	}
}

func TestReplayMemoryLeavesRoomForTheRest(t *testing.T) {
	for limit, want := range map[string]int64{"": 64 << 20, "off": 64 << 20, "64MiB": 32 << 20, "1GiB": 64 << 20, "20000000": 10000000, "20000000B": 10000000} {
		equal(t, limit, parse(t, "GOMEMLIMIT="+limit).ReplayMemory, want)
	}
	equal(t, "said", parse(t, "GOMEMLIMIT=64MiB", "PROXY_REPLAY_MEMORY=48MiB").ReplayMemory, int64(48<<20))
}

func TestCorporateProxyIsReadAsGoReadsIt(t *testing.T) {
	for _, variables := range [][]string{
		{"HTTPS_PROXY=http://u:" + marked + "@upper", "HTTP_PROXY=upper", "NO_PROXY=upper"},
		{"https_proxy=lower", "http_proxy=lower", "no_proxy=lower"},
		{"HTTPS_PROXY=upper", "https_proxy=lower", "HTTP_PROXY=upper", "http_proxy=lower", "NO_PROXY=upper", "no_proxy=lower"},
		{"HTTPS_PROXY=upper", "https_proxy="},
	} {
		t.Run(strings.Join(variables, " "), func(t *testing.T) {
			for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"} {
				t.Setenv(name, "")
			}
			for _, v := range variables {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			cfg, want := parse(t, variables...), httpproxy.FromEnvironment()
			equal(t, "https", cfg.HTTPSProxy.Reveal(), want.HTTPSProxy)
			equal(t, "http", cfg.HTTPProxy.Reveal(), want.HTTPProxy)
			equal(t, "none", cfg.NoProxy, want.NoProxy)
		})
	}
}

func TestWarnings(t *testing.T) {
	for variables, want := range map[string]string{
		"HTTPS_PROXY=http://a:" + marked + "@x|https_proxy=http://b:" + marked + "@x": "HTTPS_PROXY and https_proxy differ, and https_proxy is used",
		"HTTPS_PROXY=a|https_proxy=a":                  "",
		"PROXY_API_KEY=4711":                           "PROXY_API_KEY has a key of fewer than 16 characters, which can be guessed; use a random one, for example from: openssl rand -hex 32",
		"PROXY_API_KEY=" + strings.Repeat("k", 16):     "",
		"GODEBUG=http2debug=0,netdns=go":               "",
		"HTTPS_PROXY=proxy.example:3128":               "",
		"HTTPS_PROXY=socks5://proxy.example":           "",
		"GOMEMLIMIT=8MiB":                              "PROXY_REPLAY_LIMIT is more than the 4MiB of PROXY_REPLAY_MEMORY: request bodies over 4MiB are sent without a retry",
		"PROXY_REPLAY_MEMORY=0":                        "PROXY_REPLAY_LIMIT is more than the 0 of PROXY_REPLAY_MEMORY: request bodies over 0 are sent without a retry",
		"PROXY_REPLAY_MEMORY=0|PROXY_REPLAY_LIMIT=0":   "",
		`MIMECAST_CLIENT_SECRET="` + marked + `"`:      "MIMECAST_CLIENT_SECRET has quotation marks around its value, which count as part of it",
		"PROXY_TRUST_NETWORK=true|PROXY_API_KEY_FILE=": "PROXY_API_KEY is set, but empty, which counts as not set",
	} {
		cfg := parse(t, strings.Split(variables, "|")...)
		equal(t, variables, strings.Join(cfg.Warnings, "\n"), want)
	}
}

func TestUnknownNamesDrawAWarning(t *testing.T) {
	for name, near := range map[string]string{
		"MIMECAST_CLIENT_SECRT": "MIMECAST_CLIENT_SECRET", "PROXY_LISTN": "PROXY_LISTEN", "PROXY_API_KEY_FIL": "PROXY_API_KEY_FILE",
		"PROXY_CLIENT_ID": "MIMECAST_CLIENT_ID", "PROXY_LOGLEVEL": "PROXY_LOG_LEVEL",
		"MIMECAST_TENANT_ID": "", "PROXY_ZZZZZZZZZZZZ": "", "PROXY_PORT": "", "PROXY_": "", "MIMECAST_" + strings.Repeat("X", 80): "",
	} {
		want := name + " is not a variable of this program and is ignored"
		if near != "" {
			want += "; did you mean " + near + "?"
		}
		cfg := parse(t, name+"="+marked)
		equal(t, name, cfg.Warnings, []string{want})
		equal(t, name+" may be another program's", slices.Equal(cfg.Foreign, cfg.Warnings), near == "")
	}
	for name, says := range map[string]string{
		"MIMECAST_API_KEY": "MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET", "MIMECAST_SECRET_KEY": "set MIMECAST_CLIENT_SECRET",
		"MIMECAST_APP_ID": "API 1.0", "MIMECAST_APP_KEY": "API 1.0", "MIMECAST_ACCESS_KEY": "API 1.0",
	} {
		if got := parse(t, name+"="+marked).Warnings; len(got) != 1 || !strings.Contains(got[0], name+" is not a variable") || !strings.Contains(got[0], says) || strings.Contains(got[0], "did you mean") {
			t.Errorf("%s: %q", name, got)
		}
	}
	cfg := parse(t, "PROXY_A\nB="+marked, "PROXY_"+strings.Repeat("X", 5000)+"="+marked)
	for _, w := range cfg.Warnings {
		if strings.Contains(w, "\n") || strings.Contains(w, marked) || len(w) > 250 {
			t.Errorf("%q", w)
		}
	}
	equal(t, "number of warnings", len(cfg.Warnings), 2)
}

func TestNamesOfOtherSoftwareDrawNone(t *testing.T) {
	cfg := parse(t, "MIMECAST_PROXY_URL=x", "PROXY_SERVICE_HOST=10.0.0.1", "PROXY_SERVICE_PORT=8080", "PROXY_SERVICE_PORT_HTTP=8080",
		"PROXY_PORT=tcp://10.0.0.1:8080", "PROXY_PORT_8080_TCP=tcp://10.0.0.1:8080", "PROXY_PORT_8080_TCP_PROTO=tcp", "PROXY_PORT_53_UDP_ADDR=10.0.0.1",
		"MIMECAST_PROXY_PORT=tcp://10.0.0.1:8080", "MIMECAST_PROXY_SERVICE_HOST=10.0.0.1", "PROXYCHAINS=x", "HOME=/")
	equal(t, "warnings", cfg.Warnings, []string(nil))
}

func TestNoPrinterShowsASecret(t *testing.T) {
	file := write(t, marked)
	cfg, err := config.Parse([]string{"MIMECAST_CLIENT_ID=" + marked, "MIMECAST_CLIENT_SECRET_FILE=" + file, "PROXY_API_KEY=" + marked,
		"HTTPS_PROXY=http://u:" + marked + "@p", "HTTP_PROXY=http://u:" + marked + "@p"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := cfg.ClientSecret.Value()
	if text.Reveal() != marked {
		t.Fatal(text)
	}
	var log bytes.Buffer
	for _, v := range []any{cfg, &cfg, cfg.ClientID, &cfg.ClientSecret, cfg.HTTPSProxy, cfg.APIKey.Values(), cfg.Files, []any{cfg}, text} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&log, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(b)
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "v", v)
	}
	for _, form := range []string{marked, fmt.Sprintf("%x", marked), fmt.Sprintf("%d", []byte(marked))} {
		if strings.Contains(log.String(), form) {
			t.Errorf("printed %s in\n%s", form, log.String())
		}
	}
}

func TestAdminAddressNeedsNothingElse(t *testing.T) {
	a, err := config.AdminAddress([]string{"PROXY_ADMIN_LISTEN=0.0.0.0:19090", "PROXY_LISTEN=nonsense"})
	if err != nil || a.Address != "0.0.0.0:19090" {
		t.Errorf("%v, %v", a, err)
	}
	if a, err = config.AdminAddress([]string{"PROXY_ADMIN_LISTEN=off"}); err != nil || !a.IsZero() {
		t.Errorf("%v, %v", a, err)
	}
	if _, err = config.AdminAddress([]string{"PROXY_ADMIN_LISTEN=x"}); err == nil || !strings.Contains(err.Error(), "PROXY_ADMIN_LISTEN") {
		t.Errorf("%v", err)
	}
}
