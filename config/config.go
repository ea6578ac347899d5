// Package config turns the environment into what the operator said.
//
// [Parse] judges the whole of it once and reports every fault, each with the
// variable, what was found and what is accepted. The struct variables below is
// the manual: names, defaults, meanings and accepted values stand there and
// nowhere else, and faults, the help text and the README's table are made from
// it.
package config

import (
	"io/fs"
	"net/url"
	"time"

	"mimecast-proxy/secret"
)

// variables are the variables in the contract's order, each of a type that
// knows what it accepts. An empty variable counts as one that is not set,
// since compose files and manifests often pass those.
//
// Tags: env is the name and envDefault the default; shown describes a default
// that is no fixed value; oneof lists all accepted words, and accepts says in
// words what else is accepted; help is the meaning. A variable with
// file:"true" may come from the file that NAME_FILE names, and is left to
// [parser.readCredential].
type variables struct {
	ClientID        string          `env:"MIMECAST_CLIENT_ID" file:"true" required:"true" help:"client ID of the API 2.0 application"`
	ClientSecret    string          `env:"MIMECAST_CLIENT_SECRET" file:"true" required:"true" help:"its secret"`
	Region          choice          `env:"MIMECAST_REGION" envDefault:"global" oneof:"global us uk" help:"which of Mimecast's API gateways to use"`
	BaseURL         endpoint        `env:"MIMECAST_BASE_URL" shown:"the region's" accepts:"an https URL without user, query or fragment; http only to a loopback address" help:"base URL of the API, in place of the region; both together are an error"`
	TokenURL        endpoint        `env:"MIMECAST_TOKEN_URL" shown:"base URL + /oauth/token" accepts:"an https URL without user, query or fragment; http only to a loopback address" help:"the token endpoint"`
	CAFile          string          `env:"MIMECAST_CA_FILE" shown:"system roots" accepts:"a file with certificates in PEM form" help:"certificate authorities to trust besides the system's, for a company proxy that inspects TLS"`
	HTTPSProxy      corporateProxy  `env:"HTTPS_PROXY" shown:"none" accepts:"host:port or a URL of http, https, socks5 or socks5h, with what is special in user and password escaped" help:"corporate proxy on the way to Mimecast; https_proxy takes precedence"`
	NoProxy         string          `env:"NO_PROXY" shown:"none" accepts:"names, addresses and networks, separated by commas, as Go reads them" help:"hosts to reach without the corporate proxy; no_proxy takes precedence"`
	Listen          listenAddresses `env:"PROXY_LISTEN" envDefault:"127.0.0.1:8080" accepts:"host:port or unix:/path, several separated by commas, such as 127.0.0.1:8080,[::1]:8080" help:"where tools reach the proxy; an address that is not loopback needs PROXY_API_KEY or PROXY_TRUST_NETWORK=true"`
	SocketMode      fileMode        `env:"PROXY_SOCKET_MODE" envDefault:"0600" accepts:"an octal mode from 0600 to 0777" help:"mode of a unix socket"`
	AdminListen     optionalAddress `env:"PROXY_ADMIN_LISTEN" envDefault:"127.0.0.1:9090" accepts:"host:port, unix:/path or off" help:"where probes, metrics and the status page are"`
	APIKey          string          `env:"PROXY_API_KEY" file:"true" shown:"none" help:"key that every request must carry: Authorization: Bearer KEY, Basic with KEY as the password, or X-Proxy-Key. The file may hold several keys, one per line, all valid at once"`
	TrustNetwork    boolean         `env:"PROXY_TRUST_NETWORK" envDefault:"false" accepts:"true or false" help:"true: whoever can reach the proxy may use the account, without a key"`
	AllowedHosts    hostNames       `env:"PROXY_ALLOWED_HOSTS" shown:"none" accepts:"host names without port, separated by commas; * for any" help:"names that requests may call the proxy by, besides the loopback names and PROXY_LISTEN's hosts"`
	AllowedOrigins  origins         `env:"PROXY_ALLOWED_ORIGINS" shown:"none" accepts:"origins such as https://tool.example, separated by commas" help:"browser origins that may call"`
	Allow           list            `env:"PROXY_ALLOW" shown:"everything" accepts:"patterns such as GET /siem/, or @read, @metadata, @siem, @ttp-logs, @audit, separated by commas or lines" help:"the only routes to let through"`
	AllowMode       choice          `env:"PROXY_ALLOW_MODE" envDefault:"enforce" oneof:"enforce report" help:"report: log and count what PROXY_ALLOW would refuse, and let it pass"`
	TokenStub       boolean         `env:"PROXY_TOKEN_STUB" envDefault:"true" accepts:"true or false" help:"answer POST /oauth/token with a harmless token, for clients that insist on OAuth; false: refuse it"`
	ReplayLimit     size            `env:"PROXY_REPLAY_LIMIT" envDefault:"8MiB" accepts:"a size such as 8MiB, 512KiB or 65536" help:"largest request body that is kept for a retry"`
	ReplayMemory    *size           `env:"PROXY_REPLAY_MEMORY" shown:"64MiB, or half of GOMEMLIMIT if that is less" accepts:"a size such as 64MiB" help:"what all kept bodies may take together; past it requests flow on, without a retry"`
	RateLimitWait   delay           `env:"PROXY_RATE_LIMIT_WAIT" envDefault:"0s" accepts:"a duration such as 30s" help:"how long a request that got 429 may be held and sent again; 0s passes 429 on"`
	MaxRequests     number          `env:"PROXY_MAX_REQUESTS" envDefault:"1024" accepts:"a number from 1 to 1000000" help:"requests in flight; past it 503"`
	MaxHeaderBytes  headerSize      `env:"PROXY_MAX_HEADER_BYTES" envDefault:"16KiB" accepts:"a size from 1KiB to 1MiB" help:"largest header of a request; past it 431"`
	MaxHeaderFields number          `env:"PROXY_MAX_HEADER_FIELDS" envDefault:"200" accepts:"a number from 1 to 1000000" help:"most fields in the header of a request; past it 431"`
	MemoryLimit     memoryLimit     `env:"GOMEMLIMIT" shown:"three quarters of the container's memory limit" accepts:"a size such as 64MiB, or off" help:"memory that Go tries to stay below"`
	MaxConnections  number          `env:"PROXY_MAX_CONNECTIONS" envDefault:"128" accepts:"a number from 1 to 1000000" help:"connections to Mimecast; over HTTP/1.1 also the requests that are upstream at once"`
	DialTimeout     timeout         `env:"PROXY_DIAL_TIMEOUT" envDefault:"10s" accepts:"a duration from 1ms" help:"to connect to Mimecast, and as long again for TLS"`
	ResponseTimeout timeout         `env:"PROXY_RESPONSE_TIMEOUT" envDefault:"120s" accepts:"a duration from 1ms" help:"to wait for Mimecast's response headers"`
	IdleTimeout     timeout         `env:"PROXY_IDLE_TIMEOUT" envDefault:"90s" accepts:"a duration from 1ms" help:"to keep an idle connection to Mimecast"`
	ShutdownDelay   delay           `env:"PROXY_SHUTDOWN_DELAY" envDefault:"0s" accepts:"a duration such as 5s" help:"after SIGTERM: not ready, but still serving"`
	ShutdownTimeout timeout         `env:"PROXY_SHUTDOWN_TIMEOUT" envDefault:"25s" accepts:"a duration from 1ms" help:"then: for requests in flight to end"`
	QuitEndpoint    boolean         `env:"PROXY_QUIT_ENDPOINT" envDefault:"false" accepts:"true or false" help:"turns on POST /quitquitquit of the admin listener"`
	LogLevel        choice          `env:"PROXY_LOG_LEVEL" envDefault:"info" oneof:"trace debug info warn error" help:"what to log"`
	LogFormat       choice          `env:"PROXY_LOG_FORMAT" envDefault:"auto" oneof:"auto console json gcp" help:"auto: console on a terminal, else JSON; gcp: JSON with the severity and message of Google Cloud Logging"`
}

// Config is what the operator said, judged. No printer shows a secret in it.
type Config struct {
	// ClientID and ClientSecret are in force; a Watcher replaces them.
	ClientID, ClientSecret Credential
	// Region is empty where MIMECAST_BASE_URL stands in its place.
	Region string
	// BaseURL has no trailing slash, user, query or fragment; TokenURL neither.
	BaseURL, TokenURL *url.URL
	// CA are the authorities besides the system's; zero where there are none.
	CA Authorities
	// HTTPSProxy, HTTPProxy and NoProxy name the company proxy, as Go reads
	// them. Their user part may hold a password.
	HTTPSProxy, HTTPProxy secret.Text
	NoProxy               string
	// Listen has at least one address, the main one first.
	Listen     []Address
	SocketMode fs.FileMode
	// Admin is zero where the admin listener is off.
	Admin Address
	// APIKey holds every key that is valid. It is zero where none is wanted.
	APIKey       Credential
	TrustNetwork bool
	// AllowedHosts and AllowedOrigins are in lower case. IPv6 addresses among
	// the hosts have no brackets.
	AllowedHosts, AllowedOrigins []string
	// Allow has the routes as they were written: whether they are patterns is
	// not judged here.
	Allow       []string
	AllowReport bool
	TokenStub   bool
	// ReplayLimit and ReplayMemory are bytes.
	ReplayLimit, ReplayMemory int64
	RateLimitWait             time.Duration
	MaxRequests               int
	// MaxHeaderBytes and MaxHeaderFields bound the header of a request to the data
	// port.
	MaxHeaderBytes, MaxHeaderFields int
	// MemoryLimit is what Go is to stay below, in bytes; 0 is no limit.
	MemoryLimit int64
	// MaxConnections bounds the connections to each host of Mimecast's.
	MaxConnections                            int
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
	ShutdownDelay, ShutdownTimeout            time.Duration
	QuitEndpoint                              bool
	LogLevel, LogFormat                       string
	// Files are those that variables name, for a Watcher.
	Files []*File
	// Warnings are for the operator: what is no fault but probably not meant.
	Warnings []string
	// Foreign are those of Warnings that are about names which resemble no variable
	// of ours, and may be another program's.
	Foreign []string

	values map[string]string // for Settings
}

// Parse judges the environment, as os.Environ gives it. Of a name that stands
// there twice the last one counts. The error is an [*Error] with every fault;
// the Config beside it is good for nothing but further judgement.
func Parse(environ []string) (Config, error) {
	p := newParser(environ)
	v := p.decode()
	cfg := Config{
		ClientID:        p.readCredential("MIMECAST_CLIENT_ID", parseSecret),
		ClientSecret:    p.readCredential("MIMECAST_CLIENT_SECRET", parseSecret),
		CA:              p.readAuthorities(v.CAFile),
		HTTPSProxy:      v.HTTPSProxy.url,
		HTTPProxy:       secret.New(p.environ["HTTP_PROXY"]),
		NoProxy:         v.NoProxy,
		Listen:          v.Listen,
		SocketMode:      fs.FileMode(v.SocketMode),
		Admin:           v.AdminListen.Address,
		APIKey:          p.readCredential("PROXY_API_KEY", parseKeys),
		TrustNetwork:    bool(v.TrustNetwork),
		AllowedHosts:    v.AllowedHosts,
		AllowedOrigins:  v.AllowedOrigins,
		Allow:           v.Allow,
		AllowReport:     v.AllowMode == "report",
		TokenStub:       bool(v.TokenStub),
		ReplayLimit:     int64(v.ReplayLimit),
		ReplayMemory:    replayMemory(v),
		RateLimitWait:   time.Duration(v.RateLimitWait),
		MaxRequests:     int(v.MaxRequests),
		MaxHeaderBytes:  int(v.MaxHeaderBytes),
		MaxHeaderFields: int(v.MaxHeaderFields),
		MemoryLimit:     int64(v.MemoryLimit),
		MaxConnections:  int(v.MaxConnections),
		DialTimeout:     time.Duration(v.DialTimeout),
		ResponseTimeout: time.Duration(v.ResponseTimeout),
		IdleTimeout:     time.Duration(v.IdleTimeout),
		ShutdownDelay:   time.Duration(v.ShutdownDelay),
		ShutdownTimeout: time.Duration(v.ShutdownTimeout),
		QuitEndpoint:    bool(v.QuitEndpoint),
		LogLevel:        string(v.LogLevel),
		LogFormat:       string(v.LogFormat),
	}
	p.setUpstream(&cfg, v)
	p.checkListeners(cfg)
	p.checkDebugging()
	p.addWarnings(cfg)
	cfg.Files, cfg.Warnings, cfg.Foreign, cfg.values = p.files, p.warnings, p.foreign, p.visibleValues()
	return cfg, p.err()
}

// AdminAddress returns PROXY_ADMIN_LISTEN alone, for commands that ask a running
// proxy and need nothing else of its configuration. It is zero where it is off.
func AdminAddress(environ []string) (Address, error) {
	p := newParser(environ)
	v := p.decode()
	p.keepErrorsOf("PROXY_ADMIN_LISTEN")
	return v.AdminListen.Address, p.err()
}
