package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"mimecast-proxy/secret"
)

const clientsVariable = "PROXY_CLIENTS_FILE"

// DefaultAccount is the name of the account that the MIMECAST_ variables describe.
const DefaultAccount = "default"

const (
	// maxClientsFile bounds the clients file, in bytes: what the other bounds allow is
	// far less.
	maxClientsFile = 1 << 20
	// maxClients and maxAccounts bound what a clients file may name, and maxAllKeys
	// the keys of all clients.
	maxClients, maxAccounts, maxAllKeys = 100, 100, 1000
)

// Clients is the content of PROXY_CLIENTS_FILE. A [Watcher] replaces it when the file
// changes, or a file that it names. The zero value has none. Copies share the content.
type Clients struct {
	// state is a func, since every printer shows a func as an address at most.
	state func() *clientsState
}

// Directory is one version of the clients file. Do not change it.
type Directory struct {
	// Clients and Accounts are in the order of the file. There is at least one client.
	Clients  []Client
	Accounts []Account
	// Warnings are texts about what is valid but probably a mistake, each with its
	// line. Those of the first version are in [Config.Warnings] as well.
	Warnings []string
}

// Client is who may call, by which keys, and what.
type Client struct {
	// Name has 1 to 40 of a-z, 0-9 and '-', and is unique.
	Name string
	// Line is where the file has the name, and AllowLine where it has the routes; 0:
	// there are none.
	Line, AllowLine int
	// Keys are the keys of files, and Digests the SHA-256 of further keys. All are
	// valid at once. There is at least one of both, and none is another client's.
	Keys    []secret.Text
	Digests [][sha256.Size]byte
	// Allow has the routes as they were written; the guard checks the patterns. None:
	// everything that PROXY_ALLOW lets through.
	Allow []string
	// MaxRequests bounds the client's in-flight requests; 0: only PROXY_MAX_REQUESTS
	// does.
	MaxRequests int
	// Account names one of the Directory's; empty: the account of the MIMECAST_
	// variables.
	Account string
}

// Account is a further account at Mimecast.
type Account struct {
	// Name has 1 to 40 of a-z, 0-9 and '-', is unique, and not [DefaultAccount].
	Name string
	// Region is empty if the file has a base URL.
	Region string
	// BaseURL has no trailing slash, user, query or fragment; TokenURL neither.
	BaseURL, TokenURL *url.URL
	// ClientID and ClientSecret are the account's credentials.
	ClientID, ClientSecret secret.Text
	// SecretFile is the path of the file with the secret.
	SecretFile string
}

// clientsState is what the copies of a [Clients] share.
type clientsState struct {
	path    string
	current atomic.Pointer[Directory]
	// loaded is the content of the last version without errors, and last the last
	// version, for the Watcher alone.
	loaded *Directory
	last   clientsVersion
	apply  func(*Directory) error
	// needsAccount is set if the MIMECAST_ variables describe no account.
	needsAccount bool
}

// IsZero reports whether PROXY_CLIENTS_FILE is not set.
func (c Clients) IsZero() bool { return c.state == nil }

// Current returns the version in force. It is nil only if c is zero. It reads no file.
func (c Clients) Current() *Directory {
	if c.IsZero() {
		return nil
	}
	return c.state().current.Load()
}

// Position returns where a line is, as FILE:LINE, for an error that another package finds.
func (c Clients) Position(line int) string { return position(c.state().path, line) }

// OnChange makes the Watcher call apply with each new version before it counts. If apply
// returns an error, the old version stays in force, and the error is reported as that of
// the file. The version in force is not passed to apply. Call OnChange before
// [Watcher.Run]; a zero c ignores it.
func (c Clients) OnChange(apply func(*Directory) error) {
	if !c.IsZero() {
		c.state().apply = apply
	}
}

// HasDefaultAccount reports whether the MIMECAST_ variables or a stored connection
// describe an account. If not, ClientID and ClientSecret are zero, and every client of
// the clients file names an account of that file, after each reload too.
func (c Config) HasDefaultAccount() bool { return !c.ClientID.IsZero() }

// KeyRequired reports whether every request must carry a key: that of PROXY_API_KEY, or
// one of the clients file.
func (c Config) KeyRequired() bool { return !c.APIKey.IsZero() || !c.Clients.IsZero() }

// readClients reads PROXY_CLIENTS_FILE.
func (p *parser) readClients(path string) Clients {
	if path == "" {
		return Clients{}
	}
	for _, name := range variable("PROXY_API_KEY").names() {
		if p.environ[name] != "" {
			p.addError(clientsVariable, "set together with "+name, "one of the two; the clients file has the keys of each client")
		}
	}
	state := &clientsState{path: path}
	state.current.Store(&Directory{})
	p.clients = Clients{func() *clientsState { return state }}
	f := &File{Variable: clientsVariable, Path: path, read: state.read, use: state.use}
	err := f.first()
	if errs, ok := errors.AsType[clientsErrors](err); ok {
		for _, e := range errs {
			p.errs = append(p.errs, e.VariableError)
		}
	} else if err != nil {
		p.addError(clientsVariable, quoted(path)+" "+err.Error(), fmt.Sprintf("a file in YAML or JSON, of at most %v", size(maxClientsFile)))
	}
	p.files = append(p.files, f)
	p.warnings = append(p.warnings, p.clients.Current().Warnings...)
	return p.clients
}

// needsNoDefault reports whether the account of the MIMECAST_ variables may be missing.
// A file with errors says too little to miss it.
func (p *parser) needsNoDefault() bool {
	if p.clients.IsZero() || p.namesCredentials() {
		return false
	}
	return !slices.ContainsFunc(p.clients.Current().Clients, func(c Client) bool { return c.Account == "" })
}

// clientsVersion is one version of the clients file and of the files that it names.
type clientsVersion struct {
	content []byte // of the clients file; nil: none was parsed yet
	named   []namedFile
	// all are the contents together, and err what is wrong with them.
	all []byte
	err error
}

// namedFile is a file that the clients file names.
type namedFile struct {
	path    string
	content []byte
	err     error
}

func readNamed(path string) namedFile {
	var buf bytes.Buffer
	err := readFile(path, maxSecret, &buf)
	return namedFile{path, buf.Bytes(), err}
}

// unchanged reports whether the file can be read, as it could before, and has the same
// content.
func (f namedFile) unchanged() bool {
	now := readNamed(f.path)
	return now.err == nil && f.err == nil && bytes.Equal(now.content, f.content)
}

// read reads the file and all that it names, so that they change together. What it
// returns is for comparison alone. It parses the file only if something changed: that of
// a large file takes up to a second.
func (s *clientsState) read() ([]byte, error) {
	var content bytes.Buffer
	if err := readFile(s.path, maxClientsFile, &content); err != nil {
		return nil, err
	}
	same := s.last.content != nil && bytes.Equal(s.last.content, content.Bytes())
	if !same || slices.ContainsFunc(s.last.named, func(f namedFile) bool { return !f.unchanged() }) {
		s.parse(content.Bytes())
	}
	return s.last.all, s.last.err
}

// parse parses the file and reads all that it names.
func (s *clientsState) parse(content []byte) {
	s.last = clientsVersion{content: content, all: slices.Clone(content)}
	loaded, errs := parseClients(s.path, content, func(path string) ([]byte, error) {
		f := readNamed(path)
		s.last.named = append(s.last.named, f)
		s.last.all = fmt.Appendf(s.last.all, "\x00%d\x00", len(f.content)) // no two sets of files look the same
		s.last.all = append(s.last.all, f.content...)
		return f.content, f.err
	})
	if s.needsAccount {
		errs = append(errs, withoutAccount(s.path, loaded)...)
	}
	if len(errs) > 0 {
		s.last.all, s.last.err = nil, errs
		return
	}
	s.loaded = loaded
}

// use puts what was read last into force.
func (s *clientsState) use([]byte) error {
	if s.apply != nil {
		if err := s.apply(s.loaded); err != nil {
			return err
		}
	}
	s.current.Store(s.loaded)
	return nil
}

// withoutAccount returns an error for each client that names no account.
func withoutAccount(path string, d *Directory) (errs clientsErrors) {
	for _, c := range d.Clients {
		if c.Account == "" {
			errs = append(errs, newClientsError(path, c.Line, "client "+c.Name+" uses the account of MIMECAST_CLIENT_ID, which was not set at the start",
				"account: with one of this file; or a restart with MIMECAST_CLIENT_ID_FILE and MIMECAST_CLIENT_SECRET_FILE"))
		}
	}
	return errs
}

// clientsError is one thing that is wrong with a clients file.
type clientsError struct {
	VariableError
	line int
}

// newClientsError returns an error with its place.
func newClientsError(path string, line int, found, accepted string) clientsError {
	return clientsError{VariableError{clientsVariable, position(path, line) + ": " + found, accepted}, line}
}

// clientsErrors is everything that is wrong with a clients file.
type clientsErrors []clientsError

// Error returns all errors on one line.
func (e clientsErrors) Error() string {
	lines := make([]string, 0, len(e))
	for _, f := range e {
		lines = append(lines, f.Found+", accepted: "+f.Accepted)
	}
	return strings.Join(lines, "; ")
}

// position returns FILE:LINE. Without the folder the line stays short; the file's path
// is beside it, or what the operator has just set.
func position(path string, line int) string {
	name := filepath.Base(path)
	if strings.ContainsFunc(name, isControl) {
		name = quoted(name)
	}
	return fmt.Sprintf("%s:%d", name, line)
}
