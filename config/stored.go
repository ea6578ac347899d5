package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mimecast-proxy/secret"
)

// DefaultProfile is the default of MIMECAST_PROFILE.
const DefaultProfile = "default"

const profileVariable = "MIMECAST_PROFILE"

// Stored is a connection that "mimecast-proxy connect" stored.
type Stored struct {
	// Place is where the credentials are, such as "the keyring".
	Place string
	// Region, BaseURL, TokenURL and CAFile apply if their variables are not set. Region
	// and BaseURL are never both set.
	Region, BaseURL, TokenURL, CAFile string
	// Read returns the credentials as a document for Parse. It returns within seconds.
	Read func() ([]byte, error)
	// Interval is the minimum time between two calls of Read. If it is 0, each check
	// calls Read.
	Interval time.Duration
	// Parse returns the credentials in a document. The error shows no part of the
	// document.
	Parse func(document []byte) (id, key secret.Text, err error)
}

// Profiles finds stored connections.
type Profiles interface {
	// Find returns the connection of a profile; nil if there is none.
	Find(profile string) (*Stored, error)
	// Names returns the names of all profiles, or nil if they cannot be read.
	Names() []string
}

// useStored takes the credentials and the API's address from a stored connection if no
// variable names credentials. Variables take precedence over stored values.
func (p *parser) useStored(profiles Profiles) {
	if profiles == nil || p.namesCredentials() {
		return
	}
	profile := p.environ[profileVariable]
	wanted := profile != ""
	if !wanted {
		profile = DefaultProfile
	}
	stored, err := profiles.Find(profile)
	switch {
	case err != nil:
		p.addError(profileVariable, fmt.Sprintf("the connection %q cannot be read: %v", profile, err), storedAccepts)
	case stored != nil:
		p.stored = stored
		p.storedValue("MIMECAST_CA_FILE", stored.CAFile)
		if p.environ["MIMECAST_REGION"] == "" && p.environ["MIMECAST_BASE_URL"] == "" {
			p.storedValue("MIMECAST_REGION", stored.Region)
			p.storedValue("MIMECAST_BASE_URL", stored.BaseURL)
			p.storedValue("MIMECAST_TOKEN_URL", stored.TokenURL)
		}
		p.readStored(profile)
	case wanted:
		accepted := storedAccepts
		if names := profiles.Names(); len(names) > 0 {
			accepted = "a stored connection: " + strings.Join(names, ", ")
		}
		p.addError(profileVariable, fmt.Sprintf("no connection is stored as %s", quoted(profile)), accepted)
	}
}

const storedAccepts = "the name of a connection from mimecast-proxy connections"

func (p *parser) namesCredentials() bool {
	names := append(variable("MIMECAST_CLIENT_ID").names(), variable("MIMECAST_CLIENT_SECRET").names()...)
	return slices.ContainsFunc(names, func(name string) bool { return p.environ[name] != "" })
}

// storedValue sets a variable that the environment does not set.
func (p *parser) storedValue(name, value string) {
	if value != "" && p.environ[name] == "" {
		p.environ[name] = value
		p.fromStored[name] = true
	}
}

// readStored reads the credentials of the stored connection.
func (p *parser) readStored(profile string) {
	id, key := newCredential(profileVariable), newCredential(profileVariable)
	f := &File{
		Variable: profileVariable, Path: fmt.Sprintf("%s, profile %s", p.stored.Place, profile),
		read: p.stored.Read, interval: p.stored.Interval,
		use: func(document []byte) error {
			newID, newKey, err := p.stored.Parse(document)
			if err == nil {
				id.current.Store(&[]secret.Text{newID})
				key.current.Store(&[]secret.Text{newKey})
			}
			return err
		},
	}
	p.storedID, p.storedSecret = id, key
	if err := f.first(); err != nil {
		p.addError(profileVariable, fmt.Sprintf("the connection %q cannot be read from %s: %v", profile, p.stored.Place, err),
			storedAccepts+"; or set MIMECAST_CLIENT_ID_FILE and MIMECAST_CLIENT_SECRET_FILE")
		return
	}
	p.files = append(p.files, f)
}

// accountCredentials returns the client ID and secret of the default account.
func (p *parser) accountCredentials() (id, key Credential) {
	if p.stored != nil || p.hasError(profileVariable) {
		return p.storedID, p.storedSecret
	}
	if p.needsNoDefault() {
		p.clients.state().needsAccount = true
		return Credential{}, Credential{}
	}
	return p.readCredential("MIMECAST_CLIENT_ID", parseSecret), p.readCredential("MIMECAST_CLIENT_SECRET", parseSecret)
}

// Origin returns where a credential comes from: its variable, the path of its file, or
// the stored connection.
func (c Config) Origin(from Credential) string {
	for _, f := range c.Files {
		if f.Variable == from.Variable() {
			return f.Path
		}
	}
	return from.Variable()
}

// IsStored reports whether the credentials come from a stored connection.
func (c Config) IsStored() bool { return c.ClientSecret.Variable() == profileVariable }
