package app

import (
	"context"
	"errors"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/connection"
	"mimecast-proxy/secret"
)

// keyringInterval is the least time between two reads of the keyring: a read starts a
// process on some systems, and a new secret is to be in use within 10 s.
const keyringInterval = 6 * time.Second

// profiles are the user's stored connections, as the configuration asks for them.
type profiles struct {
	book connection.Book
	err  error // why there is no book
}

// newProfiles returns those of the user whose environment it is; nil if it names no
// folder for them, as in a service's or a container's, and no profile either.
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

// Find implements config.Profiles.
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

// read reads the credentials of a connection that a proxy uses. Another store may hold
// them meanwhile. Another API would need a restart.
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

// Names implements config.Profiles.
func (p profiles) Names() []string {
	if p.err != nil {
		return nil
	}
	all, err := p.book.List()
	if err != nil {
		return nil // Find says why
	}
	return convert(all, func(c connection.Connection) string { return c.Profile })
}

func parseDocument(document []byte) (id, key secret.Text, err error) {
	creds, err := connection.ParseCredentials(document)
	return creds.ClientID, creds.ClientSecret, err
}

// placeOf names a store in a sentence.
func placeOf(s connection.Store) string {
	if s == connection.Keyring {
		return "the keyring"
	}
	return "a private file"
}
