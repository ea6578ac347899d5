// Package config parses the proxy's configuration: environment variables and the files
// that they name.
//
// [Parse] checks the whole environment at once and reports every error. Each has the
// variable, the value found and the accepted values. A [Watcher] rereads the files
// while the proxy runs. Names, defaults, meanings and accepted values are defined only
// in the struct variables below. Errors, the help text and the table in the
// documentation are generated from it.
package config

import (
	"io/fs"
	"net/url"
	"time"

	"mimecast-proxy/secret"
)

// variables defines all variables, in the order of the documentation. The type of each
// field checks the value. An empty variable counts as not set, since compose files and
// manifests often pass empty ones.
//
// Tags: env is the name and envDefault the default; shown describes a default that is
// not a fixed value; oneof lists all accepted words, and accepts describes other
// accepted values; help is the meaning. A variable with file:"true" may come from the
// file that NAME_FILE names. [parser.readCredential] reads it.
type variables struct {
	Profile         string          `env:"MIMECAST_PROFILE" envDefault:"default" accepts:"the name of a connection from mimecast-proxy connections" help:"Stored connection to use if no variable names credentials"`
	ClientID        string          `env:"MIMECAST_CLIENT_ID" file:"true" required:"true" shown:"required, unless a connection is stored or every client in the clients file names an account" help:"Client ID of the API 2.0 application"`
	ClientSecret    string          `env:"MIMECAST_CLIENT_SECRET" file:"true" required:"true" shown:"required, unless a connection is stored or every client in the clients file names an account" help:"Client secret of the API 2.0 application"`
	Region          choice          `env:"MIMECAST_REGION" envDefault:"global" oneof:"global us uk" help:"API gateway of your account. Accounts outside the US and the UK use global"`
	BaseURL         endpoint        `env:"MIMECAST_BASE_URL" shown:"the region's" accepts:"an https URL without user, query or fragment; http only to a loopback address" help:"Base URL of the API, in place of the region. Setting both is an error"`
	TokenURL        endpoint        `env:"MIMECAST_TOKEN_URL" shown:"base URL + /oauth/token" accepts:"an https URL without user, query or fragment; http only to a loopback address" help:"URL of the token endpoint"`
	CAFile          string          `env:"MIMECAST_CA_FILE" shown:"system roots" accepts:"a file with certificates in PEM form" help:"Certificate authorities to trust in addition to the system's. Set it if a corporate proxy inspects TLS"`
	HTTPSProxy      corporateProxy  `env:"HTTPS_PROXY" shown:"none" accepts:"host:port or a URL of http, https, socks5 or socks5h, with special characters in user and password percent-encoded" help:"Corporate proxy between this machine and Mimecast. https_proxy takes precedence"`
	NoProxy         string          `env:"NO_PROXY" shown:"none" accepts:"names, addresses and networks, separated by commas" help:"Hosts to reach without the corporate proxy. no_proxy takes precedence"`
	Listen          listenAddresses `env:"PROXY_LISTEN" envDefault:"127.0.0.1:8080" accepts:"host:port or unix:/path, several separated by commas, such as 127.0.0.1:8080,[::1]:8080; or off" help:"Addresses where clients reach the proxy. A non-loopback address requires PROXY_API_KEY, PROXY_CLIENTS_FILE or PROXY_TRUST_NETWORK=true"`
	TLSListen       listenAddresses `env:"PROXY_TLS_LISTEN" shown:"none" accepts:"as for PROXY_LISTEN" help:"Addresses where clients reach the proxy over TLS 1.2 or later, with HTTP/1.1 or HTTP/2"`
	TLSCertFile     string          `env:"PROXY_TLS_CERT_FILE" shown:"none" accepts:"a file in PEM form" help:"Certificate for PROXY_TLS_LISTEN, with all intermediate certificates"`
	TLSKeyFile      string          `env:"PROXY_TLS_KEY_FILE" shown:"none" accepts:"a file in PEM form" help:"Private key of PROXY_TLS_CERT_FILE"`
	InterceptListen listenAddresses `env:"PROXY_INTERCEPT_LISTEN" shown:"none" accepts:"as for PROXY_LISTEN, without unix:" help:"Addresses of the forward proxy, for clients with a hard-coded Mimecast address. Set HTTPS_PROXY to it in the client, and let the client trust its CA"`
	InterceptCADir  string          `env:"PROXY_INTERCEPT_CA_DIR" shown:"none" accepts:"an absolute path" help:"Folder that keeps the CA across restarts: ca.pem, bundle.pem and ca-key.pem. Without it, each start makes a new CA, served at /ca.pem of the admin listener"`
	API1            boolean         `env:"PROXY_API1" envDefault:"false" accepts:"true or false" help:"Serve calls of API 1.0 that API 2.0 lacks, such as get-siem-logs"`
	SocketMode      fileMode        `env:"PROXY_SOCKET_MODE" envDefault:"0600" accepts:"an octal mode from 0600 to 0777" help:"File mode of unix sockets"`
	AdminListen     optionalAddress `env:"PROXY_ADMIN_LISTEN" envDefault:"127.0.0.1:9090" accepts:"host:port, unix:/path or off" help:"Address of probes, metrics and the status page"`
	APIKey          string          `env:"PROXY_API_KEY" file:"true" shown:"none" help:"Key that every request must carry: Authorization: Bearer KEY, Basic with KEY as the password, or X-Proxy-Key. The file may hold several keys, one per line, all valid at once"`
	ClientsFile     string          `env:"PROXY_CLIENTS_FILE" shown:"none" accepts:"a file in YAML or JSON" help:"Named clients with their keys, routes, limits and accounts. Excludes PROXY_API_KEY"`
	TrustNetwork    boolean         `env:"PROXY_TRUST_NETWORK" envDefault:"false" accepts:"true or false" help:"true: every client that can connect may use the account, without a key"`
	AllowedHosts    hostNames       `env:"PROXY_ALLOWED_HOSTS" shown:"none" accepts:"host names without port, separated by commas; * for any" help:"Names to accept in Host, in addition to the loopback names and PROXY_LISTEN's hosts"`
	AllowedOrigins  origins         `env:"PROXY_ALLOWED_ORIGINS" shown:"none" accepts:"origins such as https://tool.example, separated by commas" help:"Browser origins that may call the proxy"`
	Allow           list            `env:"PROXY_ALLOW" shown:"everything" accepts:"patterns such as GET /siem/, or @read, @metadata, @siem, @ttp-logs, @audit, separated by commas or lines" help:"Routes to allow. The proxy rejects all others"`
	AllowMode       choice          `env:"PROXY_ALLOW_MODE" envDefault:"enforce" oneof:"enforce report" help:"report: log and count requests that PROXY_ALLOW, or allow in PROXY_CLIENTS_FILE, would reject, but forward them"`
	TokenStub       boolean         `env:"PROXY_TOKEN_STUB" envDefault:"true" accepts:"true or false" help:"true: respond to POST /oauth/token with a harmless token, for clients that insist on OAuth. false: reject it"`
	ReplayLimit     size            `env:"PROXY_REPLAY_LIMIT" envDefault:"8MiB" accepts:"a size such as 8MiB, 512KiB or 65536" help:"Largest request body to keep for a retry"`
	ReplayMemory    *size           `env:"PROXY_REPLAY_MEMORY" shown:"64MiB, or half of GOMEMLIMIT if that is less" accepts:"a size such as 64MiB" help:"Total memory for kept request bodies. Beyond it, the proxy sends bodies without a retry"`
	RateLimitWait   delay           `env:"PROXY_RATE_LIMIT_WAIT" envDefault:"0s" accepts:"a duration such as 30s" help:"How long a request that got 429 may wait before the proxy resends it. 0s passes 429 on"`
	RateLimitPace   choice          `env:"PROXY_RATE_LIMIT_PACE" envDefault:"off" oneof:"off observe on" help:"on: spread the calls to a function over Mimecast's rate limit window, and share them fairly among clients. observe: only report what on would do"`
	BatchRelay      boolean         `env:"PROXY_BATCH_RELAY" envDefault:"false" accepts:"true or false" help:"Serve SIEM batch files through the proxy, for clients without internet access"`
	MaxRequests     number          `env:"PROXY_MAX_REQUESTS" envDefault:"1024" accepts:"a number from 1 to 1000000" help:"Maximum in-flight requests. Further ones get 503"`
	MaxHeaderBytes  headerSize      `env:"PROXY_MAX_HEADER_BYTES" envDefault:"16KiB" accepts:"a size from 1KiB to 1MiB" help:"Maximum size of a request's headers. Larger ones get 431"`
	MaxHeaderFields number          `env:"PROXY_MAX_HEADER_FIELDS" envDefault:"200" accepts:"a number from 1 to 1000000" help:"Maximum number of header fields of a request. More get 431"`
	MemoryLimit     memoryLimit     `env:"GOMEMLIMIT" shown:"three quarters of the container's memory limit" accepts:"a size such as 64MiB, or off" help:"Memory that Go tries to stay below"`
	MaxConnections  number          `env:"PROXY_MAX_CONNECTIONS" envDefault:"128" accepts:"a number from 1 to 1000000" help:"Maximum connections to Mimecast per account. Over HTTP/1.1, this also limits in-flight upstream requests"`
	DialTimeout     timeout         `env:"PROXY_DIAL_TIMEOUT" envDefault:"10s" accepts:"a duration from 1ms" help:"Time to connect to Mimecast, and the same again for the TLS handshake"`
	ResponseTimeout timeout         `env:"PROXY_RESPONSE_TIMEOUT" envDefault:"120s" accepts:"a duration from 1ms" help:"Time to wait for Mimecast's response headers"`
	IdleTimeout     timeout         `env:"PROXY_IDLE_TIMEOUT" envDefault:"90s" accepts:"a duration from 1ms" help:"Time to keep an idle connection to Mimecast"`
	ShutdownDelay   delay           `env:"PROXY_SHUTDOWN_DELAY" envDefault:"0s" accepts:"a duration such as 5s" help:"Time to keep serving after SIGTERM, while not ready"`
	ShutdownTimeout timeout         `env:"PROXY_SHUTDOWN_TIMEOUT" envDefault:"25s" accepts:"a duration from 1ms" help:"Time to wait for in-flight requests after PROXY_SHUTDOWN_DELAY, before closing them"`
	QuitEndpoint    boolean         `env:"PROXY_QUIT_ENDPOINT" envDefault:"false" accepts:"true or false" help:"Enable POST /quitquitquit on the admin listener"`
	LogLevel        choice          `env:"PROXY_LOG_LEVEL" envDefault:"info" oneof:"trace debug info warn error" help:"Least severe level to log"`
	LogFormat       choice          `env:"PROXY_LOG_FORMAT" envDefault:"auto" oneof:"auto console json gcp" help:"auto: console on a terminal, else JSON. gcp: JSON with the severity and message of Google Cloud Logging. Times are UTC in every format"`
}

// Config is a validated configuration. Create it with [Parse]. No fmt verb, encoder or
// logger prints the secrets in it.
type Config struct {
	// ClientID and ClientSecret are the credentials of the default account. They are
	// zero if every client in the clients file names an account: see
	// [Config.HasDefaultAccount].
	ClientID, ClientSecret Credential
	// Region is empty if MIMECAST_BASE_URL is set.
	Region string
	// BaseURL and TokenURL have no trailing slash, user, query or fragment.
	BaseURL, TokenURL *url.URL
	// CA holds the authorities to trust in addition to the system's. It is zero if
	// there are none.
	CA Authorities
	// HTTPSProxy and HTTPProxy configure the corporate proxy, in the format that
	// net/http reads. Their user part may contain a password.
	HTTPSProxy, HTTPProxy secret.Text
	// NoProxy lists the hosts to reach without the corporate proxy, in the format that
	// net/http reads from NO_PROXY.
	NoProxy string
	// Listen has the plain HTTP addresses, the main one first. TLSListen has those with
	// TLS. At least one of the two is not empty.
	Listen, TLSListen []Address
	// TLS is zero if no certificate is configured. If TLSListen is set then, the
	// interception CA issues its certificate.
	TLS KeyPair
	// InterceptListen has the addresses of the forward proxy. It is empty if the
	// forward proxy is off.
	InterceptListen []Address
	// InterceptCADir is the folder that keeps the CA. If it is empty, the CA is only in
	// memory.
	InterceptCADir string
	// API1 is PROXY_API1.
	API1 bool
	// SocketMode is the file mode of unix sockets.
	SocketMode fs.FileMode
	// Admin is zero if the admin listener is off.
	Admin Address
	// APIKey holds every valid key. It is zero if PROXY_API_KEY is not set.
	APIKey Credential
	// Clients is zero if PROXY_CLIENTS_FILE is not set. At most one of Clients and
	// APIKey is set.
	Clients Clients
	// TrustNetwork allows non-loopback addresses in Listen and TLSListen without a key.
	TrustNetwork bool
	// AllowedHosts and AllowedOrigins are in lower case. IPv6 addresses among
	// the hosts have no brackets.
	AllowedHosts, AllowedOrigins []string
	// Allow has the routes as written. Package guard checks the patterns.
	Allow []string
	// AllowReport is PROXY_ALLOW_MODE=report.
	AllowReport bool
	// TokenStub is PROXY_TOKEN_STUB.
	TokenStub bool
	// ReplayLimit and ReplayMemory are in bytes.
	ReplayLimit, ReplayMemory int64
	// RateLimitWait is 0 if the proxy passes 429 on at once.
	RateLimitWait time.Duration
	// RateLimitPace is "off", "observe" or "on".
	RateLimitPace string
	// BatchRelay is PROXY_BATCH_RELAY.
	BatchRelay bool
	// MaxRequests limits the in-flight requests.
	MaxRequests int
	// MaxHeaderBytes and MaxHeaderFields limit the header of a request on the data
	// listeners.
	MaxHeaderBytes, MaxHeaderFields int
	// MemoryLimit is Go's soft memory limit, in bytes; 0 means no limit.
	MemoryLimit int64
	// MaxConnections limits the connections to each Mimecast host.
	MaxConnections int
	// DialTimeout, ResponseTimeout and IdleTimeout apply to connections to Mimecast.
	DialTimeout, ResponseTimeout, IdleTimeout time.Duration
	// ShutdownDelay and ShutdownTimeout limit the two phases of a shutdown.
	ShutdownDelay, ShutdownTimeout time.Duration
	// QuitEndpoint is PROXY_QUIT_ENDPOINT.
	QuitEndpoint bool
	// LogLevel and LogFormat are each one of the accepted words, in lower case.
	LogLevel, LogFormat string
	// Files are the files that variables name, for a [Watcher].
	Files []*File
	// Warnings describe settings that are valid but probably a mistake.
	Warnings []string
	// Foreign are those Warnings about names that resemble no variable of the proxy.
	// They may belong to another program.
	Foreign []string

	values map[string]Setting // the explicitly set values, for Settings
}

// Parse parses the environment, in the format of os.Environ. If a name is repeated, the
// last value counts. Parse looks in profiles if no variable names credentials; nil
// means no profiles. The error is an [*Error] that lists everything wrong. After an
// error, use the Config only for further checks.
func Parse(environ []string, profiles Profiles) (Config, error) {
	p := newParser(environ)
	p.useStored(profiles)
	v := p.decode()
	clients := p.readClients(v.ClientsFile)
	id, key := p.accountCredentials()
	cfg := Config{
		ClientID:        id,
		ClientSecret:    key,
		CA:              p.readAuthorities(v.CAFile),
		HTTPSProxy:      v.HTTPSProxy.url,
		HTTPProxy:       secret.New(p.environ["HTTP_PROXY"]),
		NoProxy:         v.NoProxy,
		Listen:          v.Listen,
		TLSListen:       v.TLSListen,
		TLS:             p.readKeyPair(v),
		InterceptListen: v.InterceptListen,
		InterceptCADir:  v.InterceptCADir,
		API1:            bool(v.API1),
		SocketMode:      fs.FileMode(v.SocketMode),
		Admin:           v.AdminListen.Address,
		APIKey:          p.readCredential("PROXY_API_KEY", parseKeys),
		Clients:         clients,
		TrustNetwork:    bool(v.TrustNetwork),
		AllowedHosts:    v.AllowedHosts,
		AllowedOrigins:  v.AllowedOrigins,
		Allow:           v.Allow,
		AllowReport:     v.AllowMode == "report",
		TokenStub:       bool(v.TokenStub),
		ReplayLimit:     int64(v.ReplayLimit),
		ReplayMemory:    replayMemory(v),
		RateLimitWait:   time.Duration(v.RateLimitWait),
		RateLimitPace:   string(v.RateLimitPace),
		BatchRelay:      bool(v.BatchRelay),
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

// AdminAddress parses only PROXY_ADMIN_LISTEN, for commands that call a running proxy.
// It is zero if the admin listener is off. The error is an [*Error].
func AdminAddress(environ []string) (Address, error) {
	p := newParser(environ)
	v := p.decode()
	p.keepErrorsOf("PROXY_ADMIN_LISTEN")
	return v.AdminListen.Address, p.err()
}
