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

// DefaultAccount is the name of the account that the MIMECAST_ variables or a stored
// connection describe.
const DefaultAccount = "default"

const (
	// maxClientsFile limits the clients file, in bytes. A file within the limits below
	// is far smaller.
	maxClientsFile = 1 << 20
	// maxClients and maxAccounts limit the entries of a clients file, and maxAllKeys
	// the keys of all clients together.
	maxClients, maxAccounts, maxAllKeys = 100, 100, 1000
)

// Clients is the content of PROXY_CLIENTS_FILE. A [Watcher] replaces it when the file
// changes, or any file that it names. The zero value has no content. Copies share the
// content.
type Clients struct {
	// state is a func, because printers show at most the address of a func.
	state func() *clientsState
}

// Directory is one version of the clients file. It is read-only.
type Directory struct {
	// Clients and Accounts are in file order. There is at least one client.
	Clients  []Client
	Accounts []Account
	// Warnings describe what is valid but probably a mistake, each with its line. Those
	// of the first version are also in [Config.Warnings].
	Warnings []string
}

// Client is a named client with its keys, routes and limits.
type Client struct {
	// Name is 1 to 40 characters of a-z, 0-9 and '-', and is unique.
	Name string
	// Line is the line of the name in the file. AllowLine is the line of the routes; 0
	// if there are none.
	Line, AllowLine int
	// Keys are the keys read from files. Digests are the SHA-256 of further keys. All
	// are valid at once. A client has at least one of either, and shares none with
	// another client.
	Keys    []secret.Text
	Digests [][sha256.Size]byte
	// Allow has the routes as written; package guard checks the patterns. If it is
	// empty, the client may use all routes that PROXY_ALLOW allows.
	Allow []string
	// MaxRequests limits the client's in-flight requests. 0 means that only
	// PROXY_MAX_REQUESTS applies.
	MaxRequests int
	// Account names one of the Directory's Accounts. If it is empty, the client uses
	// the default account.
	Account string
}

// Account is an additional Mimecast account.
type Account struct {
	// Name is 1 to 40 characters of a-z, 0-9 and '-'. It is unique and not
	// [DefaultAccount].
	Name string
	// Region is empty if the file sets a base URL.
	Region string
	// BaseURL and TokenURL have no trailing slash, user, query or fragment.
	BaseURL, TokenURL *url.URL
	// ClientID and ClientSecret are the account's credentials.
	ClientID, ClientSecret secret.Text
	// SecretFile is the path of the file with the secret.
	SecretFile string
}

// clientsState is the state that the copies of a [Clients] share.
type clientsState struct {
	path    string
	current atomic.Pointer[Directory]
	// loaded is the content of the last version without errors, and last the last
	// version. Only the Watcher uses both.
	loaded *Directory
	last   clientsVersion
	apply  func(*Directory) error
	// needsAccount is set if there is no default account.
	needsAccount bool
}

// IsZero reports whether PROXY_CLIENTS_FILE is not set.
func (c Clients) IsZero() bool { return c.state == nil }

// Current returns the version in use. It is nil only if c is zero. It reads no file.
func (c Clients) Current() *Directory {
	if c.IsZero() {
		return nil
	}
	return c.state().current.Load()
}

// Position returns FILE:LINE, for errors that other packages find. c must not be zero.
func (c Clients) Position(line int) string { return position(c.state().path, line) }

// OnChange makes the Watcher call apply with each new version before using it. If apply
// returns an error, the old version stays in use, and the error is reported for the
// file. apply is not called with the version already in use. Call OnChange before
// [Watcher.Run]. A zero c ignores it.
func (c Clients) OnChange(apply func(*Directory) error) {
	if !c.IsZero() {
		c.state().apply = apply
	}
}

// HasDefaultAccount reports whether the MIMECAST_ variables or a stored connection
// describe an account. If not, ClientID and ClientSecret are zero, and every client of
// the clients file names an account of that file. This also holds after each reload.
func (c Config) HasDefaultAccount() bool { return !c.ClientID.IsZero() }

// KeyRequired reports whether every request must carry a key, from PROXY_API_KEY or
// from the clients file.
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

// needsNoDefault reports whether the default account may be missing. It returns true
// for a clients file with errors, since its clients are unknown.
func (p *parser) needsNoDefault() bool {
	if p.clients.IsZero() || p.namesCredentials() {
		return false
	}
	return !slices.ContainsFunc(p.clients.Current().Clients, func(c Client) bool { return c.Account == "" })
}

// clientsVersion is one version of the clients file and of the files that it names.
type clientsVersion struct {
	content []byte // of the clients file; nil before the first parse
	named   []namedFile
	// all is the content of all files, for comparison. err is set if they are invalid.
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

// unchanged reports whether the file is still readable and has the same content.
func (f namedFile) unchanged() bool {
	now := readNamed(f.path)
	return now.err == nil && f.err == nil && bytes.Equal(now.content, f.content)
}

// read reads the clients file and every file that it names, so that they change
// together. The result is only for comparison. Parsing a large file takes up to 1 s, so
// read parses only after a change.
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

// parse parses the file and reads every file that it names.
func (s *clientsState) parse(content []byte) {
	s.last = clientsVersion{content: content, all: slices.Clone(content)}
	loaded, errs := parseClients(s.path, content, func(path string) ([]byte, error) {
		f := readNamed(path)
		s.last.named = append(s.last.named, f)
		s.last.all = fmt.Appendf(s.last.all, "\x00%d\x00", len(f.content)) // the length keeps different sets of files distinct
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

// use puts the last version without errors into use.
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

// clientsError is one error in a clients file.
type clientsError struct {
	VariableError
	line int
}

// newClientsError returns an error with its position.
func newClientsError(path string, line int, found, accepted string) clientsError {
	return clientsError{VariableError{clientsVariable, position(path, line) + ": " + found, accepted}, line}
}

// clientsErrors has all errors of a clients file.
type clientsErrors []clientsError

// Error returns all errors on one line.
func (e clientsErrors) Error() string {
	lines := make([]string, 0, len(e))
	for _, f := range e {
		lines = append(lines, f.Found+", accepted: "+f.Accepted)
	}
	return strings.Join(lines, "; ")
}

// position returns FILE:LINE without the folder, which keeps the line short. The full
// path is printed next to it, or the operator has just set it.
func position(path string, line int) string {
	name := filepath.Base(path)
	if strings.ContainsFunc(name, isControl) {
		name = quoted(name)
	}
	return fmt.Sprintf("%s:%d", name, line)
}
