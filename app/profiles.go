package app

import (
	"context"
	"errors"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/connection"
	"mimecast-proxy/secret"
)

// keyringInterval is the minimum time between two reads of the keyring. A read starts a
// process on some systems, but a new secret must be in use within 10 s.
const keyringInterval = 6 * time.Second

// profiles implements config.Profiles with the user's stored connections.
type profiles struct {
	book connection.Book
	err  error // why there is no book
}

// newProfiles returns the stored connections of the user with this environment. It returns nil
// if the environment names no folder for them and no profile, as in a service or container.
func newProfiles(environ []string) config.Profiles {
	book, err := newBook(environ)
	if err != nil && lookup(environ, "MIMECAST_PROFILE") == "" {
		return nil
	}
	return profiles{book, err}
}

func newBook(environ []string) (connection.Book, error) {
	dir, err := connection.Dir(environ)
	return connection.Book{Dir: dir, Environ: environ}, err
}

// Find implements config.Profiles. It returns nil without an error if there is no such
// profile.
func (p profiles) Find(profile string) (*config.Stored, error) {
	if p.err != nil {
		return nil, p.err
	}
	c, err := p.book.Find(profile)
	if errors.Is(err, connection.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	stored := &config.Stored{
		Place:  placeOf(c.Store),
		Region: c.Region, BaseURL: c.BaseURL, TokenURL: c.TokenURL, CAFile: c.CAFile,
		Read:  func() ([]byte, error) { return p.read(c) },
		Parse: parseDocument,
	}
	if c.Store == connection.Keyring {
		stored.Interval = keyringInterval
	}
	return stored, nil
}

// read reads the credentials of a connection that a running proxy uses. The credentials may
// have moved to another store. A changed API address needs a restart.
func (p profiles) read(used connection.Connection) ([]byte, error) {
	now, err := p.book.Find(used.Profile)
	switch {
	case errors.Is(err, connection.ErrNotFound):
		return nil, errors.New("it was removed by mimecast-proxy disconnect")
	case err != nil:
		return nil, err
	case now.Region != used.Region || now.BaseURL != used.BaseURL || now.TokenURL != used.TokenURL:
		return nil, errors.New("its API address changed: restart the proxy to use it")
	}
	return p.book.Read(context.Background(), now)
}

// Names implements config.Profiles. If the list cannot be read, it returns nil.
func (p profiles) Names() []string {
	if p.err != nil {
		return nil
	}
	all, err := p.book.List()
	if err != nil {
		return nil // Find reports the error
	}
	return convert(all, func(c connection.Connection) string { return c.Profile })
}

func parseDocument(document []byte) (id, key secret.Text, err error) {
	creds, err := connection.ParseCredentials(document)
	return creds.ClientID, creds.ClientSecret, err
}

// placeOf returns the name of a store for messages.
func placeOf(s connection.Store) string {
	if s == connection.Keyring {
		return "the keyring"
	}
	return "a private file"
}
