// Package config turns the environment into what the operator said.
//
// [Parse] judges the whole of it once and reports every fault, each with the
// variable, what was found and what is accepted. The struct variables below is
// the manual: names, defaults, meanings and accepted values stand there and
// nowhere else, and the help text and the README's table are made from it.
package config

import (
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"mimecast-proxy/secret"
)

// variables are the variables as they stand in the environment, before they
// are judged. An empty variable counts as one that is not set, since compose
// files and manifests often pass those. A field with file:"true" may come from
// the file that NAME_FILE names.
type variables struct {
	ClientID        string `env:"MIMECAST_CLIENT_ID" file:"true" required:"true" help:"client ID of the API 2.0 application"`
	ClientSecret    string `env:"MIMECAST_CLIENT_SECRET" file:"true" required:"true" help:"its secret"`
	Region          string `env:"MIMECAST_REGION" envDefault:"global" accepts:"global, us or uk" help:"which of Mimecast's API gateways to use"`
	BaseURL         string `env:"MIMECAST_BASE_URL" shown:"the region's" accepts:"an https URL without query; http only to a loopback address" help:"base URL of the API, instead of a region"`
	TokenURL        string `env:"MIMECAST_TOKEN_URL" shown:"base URL + /oauth/token" accepts:"an https URL without query; http only to a loopback address" help:"the token endpoint"`
	CAFile          string `env:"MIMECAST_CA_FILE" shown:"system roots" accepts:"a file with certificates in PEM form" help:"certificate authorities to trust besides the system's, for a company proxy that inspects TLS"`
	Listen          string `env:"PROXY_LISTEN" envDefault:"127.0.0.1:8080" accepts:"host:port, or unix:/path" help:"where tools reach the proxy; an address that is not loopback needs PROXY_API_KEY or PROXY_TRUST_NETWORK=true"`
	SocketMode      string `env:"PROXY_SOCKET_MODE" envDefault:"0600" accepts:"an octal mode from 0600 to 0777" help:"mode of a unix socket"`
	AdminListen     string `env:"PROXY_ADMIN_LISTEN" envDefault:"127.0.0.1:9090" accepts:"host:port, unix:/path or off" help:"where probes, metrics and the status page are"`
	APIKey          string `env:"PROXY_API_KEY" file:"true" shown:"none" help:"key that every request must carry: Authorization: Bearer KEY, Basic with KEY as password, or X-Proxy-Key"`
	TrustNetwork    string `env:"PROXY_TRUST_NETWORK" envDefault:"false" accepts:"true or false" help:"true: whoever can reach the proxy may use the account, without a key"`
	AllowedHosts    string `env:"PROXY_ALLOWED_HOSTS" shown:"loopback names" accepts:"host names without port, separated by commas; * for any" help:"further names that requests may call the proxy by"`
	AllowedOrigins  string `env:"PROXY_ALLOWED_ORIGINS" shown:"none" accepts:"origins such as https://tool.example, separated by commas" help:"browser origins that may call"`
	Allow           string `env:"PROXY_ALLOW" shown:"everything" accepts:"patterns such as GET /siem/, or @read, @siem, @ttp-logs, @audit, separated by commas" help:"the only routes to let through"`
	AllowMode       string `env:"PROXY_ALLOW_MODE" envDefault:"enforce" accepts:"enforce or report" help:"report: log and count what PROXY_ALLOW would refuse, and let it pass"`
	TokenStub       string `env:"PROXY_TOKEN_STUB" envDefault:"true" accepts:"true or false" help:"answer POST /oauth/token with a harmless token, for clients that insist on OAuth"`
	ReplayLimit     string `env:"PROXY_REPLAY_LIMIT" envDefault:"8MiB" accepts:"a size such as 8MiB, 512KiB or 1000" help:"largest request body that is kept for a retry"`
	ReplayMemory    string `env:"PROXY_REPLAY_MEMORY" shown:"64MiB, or half of GOMEMLIMIT" accepts:"a size such as 64MiB" help:"what all kept bodies may take together"`
	RateLimitWait   string `env:"PROXY_RATE_LIMIT_WAIT" envDefault:"0s" accepts:"a duration such as 30s" help:"how long a request that got 429 may be held and sent again; 0s passes 429 on"`
	MaxRequests     string `env:"PROXY_MAX_REQUESTS" envDefault:"1024" accepts:"a number from 1" help:"requests in flight; past it 503"`
	DialTimeout     string `env:"PROXY_DIAL_TIMEOUT" envDefault:"10s" accepts:"a duration such as 10s" help:"to connect to Mimecast, and again for TLS"`
	ResponseTimeout string `env:"PROXY_RESPONSE_TIMEOUT" envDefault:"120s" accepts:"a duration such as 120s" help:"to wait for Mimecast's response headers"`
	IdleTimeout     string `env:"PROXY_IDLE_TIMEOUT" envDefault:"90s" accepts:"a duration such as 90s" help:"to keep an idle connection to Mimecast"`
	ShutdownDelay   string `env:"PROXY_SHUTDOWN_DELAY" envDefault:"0s" accepts:"a duration such as 5s" help:"after SIGTERM: not ready, but still serving"`
	ShutdownTimeout string `env:"PROXY_SHUTDOWN_TIMEOUT" envDefault:"25s" accepts:"a duration such as 25s" help:"then: for requests in flight to end"`
	QuitEndpoint    string `env:"PROXY_QUIT_ENDPOINT" envDefault:"false" accepts:"true or false" help:"turns on POST /quitquitquit of the admin listener"`
	LogLevel        string `env:"PROXY_LOG_LEVEL" envDefault:"info" accepts:"trace, debug, info, warn or error" help:"what to log"`
	LogFormat       string `env:"PROXY_LOG_FORMAT" envDefault:"auto" accepts:"auto, console or json" help:"auto: console on a terminal, else JSON"`
}

// Config is what the operator said, judged. No printer shows a secret in it.
type Config struct {
	// ClientID and ClientSecret are read anew before each token request.
	ClientID, ClientSecret Credential
	// BaseURL has no trailing slash, query or user; TokenURL neither.
	BaseURL, TokenURL *url.URL
	// CAPEM is what MIMECAST_CA_FILE held; nil without one.
	CAPEM []byte
	// HTTPSProxy, HTTPProxy and NoProxy name the company proxy, as Go reads
	// them. Their user part may hold a password.
	HTTPSProxy, HTTPProxy secret.Text
	NoProxy               string
	Listen                Address
	SocketMode            fs.FileMode
	// Admin is zero where the admin listener is off.
	Admin Address
	// APIKey is zero where none is wanted.
	APIKey                               Credential
	AllowedHosts, AllowedOrigins, Allow  []string
	AllowReport, TokenStub, QuitEndpoint bool
	// ReplayLimit and ReplayMemory are bytes.
	ReplayLimit, ReplayMemory                 int64
	RateLimitWait                             time.Duration
	MaxRequests                               int
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
	ShutdownDelay, ShutdownTimeout            time.Duration
	LogLevel, LogFormat                       string
	// Warnings are for the operator: what is no fault but probably not meant.
	Warnings []string
}

// Parse judges the environment, as os.Environ gives it. The error is an
// [*Error] with every fault.
func Parse(environ []string) (Config, error) {
	j := newJudge(environ)
	v := j.vars
	cfg := Config{
		ClientID:        j.credential("MIMECAST_CLIENT_ID", true),
		ClientSecret:    j.credential("MIMECAST_CLIENT_SECRET", true),
		APIKey:          j.credential("PROXY_API_KEY", false),
		CAPEM:           j.pem("MIMECAST_CA_FILE", v.CAFile),
		HTTPSProxy:      secret.New(j.either("HTTPS_PROXY", "https_proxy")),
		HTTPProxy:       secret.New(j.either("HTTP_PROXY", "http_proxy")),
		NoProxy:         j.either("NO_PROXY", "no_proxy"),
		Listen:          j.address("PROXY_LISTEN", v.Listen),
		SocketMode:      j.mode("PROXY_SOCKET_MODE", v.SocketMode),
		AllowedHosts:    j.hosts("PROXY_ALLOWED_HOSTS", v.AllowedHosts),
		AllowedOrigins:  j.origins("PROXY_ALLOWED_ORIGINS", v.AllowedOrigins),
		Allow:           list(v.Allow),
		AllowReport:     j.choice("PROXY_ALLOW_MODE", v.AllowMode) == "report",
		TokenStub:       j.boolean("PROXY_TOKEN_STUB", v.TokenStub),
		QuitEndpoint:    j.boolean("PROXY_QUIT_ENDPOINT", v.QuitEndpoint),
		ReplayLimit:     j.size("PROXY_REPLAY_LIMIT", v.ReplayLimit),
		RateLimitWait:   j.duration("PROXY_RATE_LIMIT_WAIT", v.RateLimitWait, 0),
		MaxRequests:     j.number("PROXY_MAX_REQUESTS", v.MaxRequests),
		DialTimeout:     j.duration("PROXY_DIAL_TIMEOUT", v.DialTimeout, time.Millisecond),
		ResponseTimeout: j.duration("PROXY_RESPONSE_TIMEOUT", v.ResponseTimeout, time.Millisecond),
		IdleTimeout:     j.duration("PROXY_IDLE_TIMEOUT", v.IdleTimeout, time.Millisecond),
		ShutdownDelay:   j.duration("PROXY_SHUTDOWN_DELAY", v.ShutdownDelay, 0),
		ShutdownTimeout: j.duration("PROXY_SHUTDOWN_TIMEOUT", v.ShutdownTimeout, 0),
		LogLevel:        j.choice("PROXY_LOG_LEVEL", v.LogLevel),
		LogFormat:       j.choice("PROXY_LOG_FORMAT", v.LogFormat),
		Warnings:        j.unknown(),
	}
	j.urls(&cfg)
	j.listeners(&cfg)
	j.memory(&cfg)
	return cfg, j.error()
}

// AdminAddress returns PROXY_ADMIN_LISTEN alone, for commands that ask a running
// proxy and need nothing else of its configuration. It is zero where it is off.
func AdminAddress(environ []string) (Address, error) {
	j := newJudge(environ)
	a := j.admin()
	return a, j.error()
}

// decode maps the environment to the struct, empty variables left out.
func decode(environ map[string]string) (variables, error) {
	return env.ParseAsWithOptions[variables](env.Options{Environment: environ})
}

// list splits at commas and newlines.
func list(s string) []string {
	return strings.FieldsFunc(strings.NewReplacer(", ", ",", " ,", ",").Replace(s), func(r rune) bool { return r == ',' || r == '\n' })
}
