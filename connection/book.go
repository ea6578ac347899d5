package connection

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

// ErrOldCopy is the error if [Book.Save] moved a connection to another store, but could not
// remove the credentials from the former store. The connection is stored.
var ErrOldCopy = errors.New("the connection is stored, but its former copy remains")

// Book is the list of one user's connections, with access to both stores. Dir must be set.
type Book struct {
	// Dir is the folder for the list and the file store, usually from the function Dir.
	Dir string
	// Environ is the process's environment, with the D-Bus address of the keyring. macOS and
	// Windows need none.
	Environ []string
	// Keyring replaces the system's keyring; nil: it does not.
	Keyring KeyringBackend
}

// vault is a store that holds credentials by profile.
type vault interface {
	// Set stores a document, and replaces an older one.
	Set(ctx context.Context, profile string, document []byte) error
	// Get returns a document, or ErrNotFound if there is none.
	Get(ctx context.Context, profile string) ([]byte, error)
	// Delete removes a document. It returns nil if there is none.
	Delete(ctx context.Context, profile string) error
}

func (b Book) vault(s Store) (vault, error) {
	switch s {
	case Keyring:
		return b.keyring(), nil
	case File:
		return files{filepath.Join(b.Dir, "connections")}, nil
	}
	return nil, fmt.Errorf("unknown store %.40q: use %s or %s", string(s), Keyring, File)
}

// List returns all connections, sorted by profile. If there are none, it returns nil without
// an error. It returns an error if other users can access the list or it is damaged.
func (b Book) List() ([]Connection, error) {
	path := filepath.Join(b.Dir, "connections.json")
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Connection
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s is damaged: remove it and connect again", path)
	}
	for _, c := range list {
		if _, err := b.vault(c.Store); err != nil || CheckProfile(c.Profile) != nil {
			return nil, fmt.Errorf("%s is damaged at profile %.40q: remove it and connect again", path, c.Profile)
		}
	}
	slices.SortFunc(list, func(c, d Connection) int { return cmp.Compare(c.Profile, d.Profile) })
	return list, nil
}

// Find returns the connection of a profile. The error wraps ErrNotFound if there is none.
func (b Book) Find(profile string) (Connection, error) {
	list, err := b.List()
	if err != nil {
		return Connection{}, err
	}
	i := index(list, profile)
	if i < 0 {
		return Connection{}, fmt.Errorf("a connection with profile %.40q: %w", profile, ErrNotFound)
	}
	return list[i], nil
}

func index(list []Connection, profile string) int {
	return slices.IndexFunc(list, func(c Connection) bool { return c.Profile == profile })
}

// Save stores credentials, and then adds the connection to the list or replaces the one with
// the same profile. If that one was in another store, Save removes its credentials there. If
// only this removal fails, the error wraps ErrOldCopy.
func (b Book) Save(ctx context.Context, c Connection, creds Credentials) error {
	if err := CheckProfile(c.Profile); err != nil {
		return err
	}
	if err := creds.Check(); err != nil {
		return err
	}
	to, err := b.vault(c.Store)
	if err != nil {
		return err
	}
	c.IDStart = idStart(creds.ClientID.Reveal())
	return b.locked(ctx, func() error { return b.save(ctx, c, creds, to) })
}

func (b Book) save(ctx context.Context, c Connection, creds Credentials, to vault) error {
	list, err := b.List()
	if err != nil {
		return err
	}
	var old Connection
	if i := index(list, c.Profile); i >= 0 {
		old = list[i]
		list = slices.Delete(list, i, i+1)
	}
	if err := to.Set(ctx, c.Profile, creds.Marshal()); err != nil {
		return err
	}
	if err := b.write(append(list, c)); err != nil {
		if old.Store != c.Store { // no list entry refers to these credentials
			err = errors.Join(err, to.Delete(ctx, c.Profile))
		}
		return err
	}
	if old.Store == "" || old.Store == c.Store {
		return nil
	}
	from, err := b.vault(old.Store)
	if err == nil {
		err = from.Delete(ctx, c.Profile)
	}
	if err != nil {
		return fmt.Errorf("%w in %s: %w", ErrOldCopy, old.Store, err)
	}
	return nil
}

func (b Book) write(list []Connection) error {
	slices.SortFunc(list, func(c, d Connection) int { return cmp.Compare(c.Profile, d.Profile) })
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(b.Dir, "connections.json"), append(text, '\n'))
}

// Read returns the document with a connection's credentials, for [ParseCredentials]. The error
// wraps ErrNotFound if the credentials are gone.
func (b Book) Read(ctx context.Context, c Connection) ([]byte, error) {
	if err := CheckProfile(c.Profile); err != nil {
		return nil, err
	}
	from, err := b.vault(c.Store)
	if err != nil {
		return nil, err
	}
	text, err := from.Get(ctx, c.Profile)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("the credentials of profile %s in %s: %w; connect again", c.Profile, c.Store, ErrNotFound)
	}
	return text, err
}

// Remove deletes a connection and its credentials. The error wraps ErrNotFound if there is no
// such connection. If the credentials cannot be deleted, the connection stays in the list.
func (b Book) Remove(ctx context.Context, profile string) error {
	if err := CheckProfile(profile); err != nil {
		return err
	}
	return b.locked(ctx, func() error {
		c, err := b.Find(profile)
		if err != nil {
			return err
		}
		from, err := b.vault(c.Store)
		if err != nil {
			return err
		}
		if err := from.Delete(ctx, profile); err != nil {
			return err
		}
		list, err := b.List()
		if err != nil {
			return err
		}
		return b.write(slices.DeleteFunc(list, func(c Connection) bool { return c.Profile == profile }))
	})
}
