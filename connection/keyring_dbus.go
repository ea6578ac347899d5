//go:build !darwin && !windows

package connection

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	ss "github.com/zalando/go-keyring/secret_service"
)

// Names from the Secret Service API, https://specifications.freedesktop.org/secret-service.
const (
	secretsName       = "org.freedesktop.secrets"
	secretsPath       = "/org/freedesktop/secrets"
	secretsService    = "org.freedesktop.Secret.Service"
	secretsCollection = "org.freedesktop.Secret.Collection"
	secretsItem       = "org.freedesktop.Secret.Item"
	loginCollection   = secretsPath + "/collection/login"
	noObject          = dbus.ObjectPath("/")
)

// secretService is the Secret Service of a D-Bus session. It does not use go-keyring's calls:
// they take the bus from the process's environment, start one if there is none, and wait
// indefinitely for prompts. A background server must not do that. The entries have the same
// attributes as go-keyring's, so that its tools find them.
type secretService struct{ environ []string }

func systemKeyring(environ []string) KeyringBackend { return secretService{environ} }

// State implements KeyringBackend.
func (s secretService) State(ctx context.Context) error {
	session, err := s.open(ctx)
	if err != nil {
		return err
	}
	return session.close(nil)
}

// Set implements KeyringBackend.
func (s secretService) Set(ctx context.Context, profile string, document []byte) error {
	session, err := s.open(ctx)
	if err != nil {
		return err
	}
	return session.close(session.set(profile, document))
}

// Get implements KeyringBackend.
func (s secretService) Get(ctx context.Context, profile string) ([]byte, error) {
	session, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	document, err := session.get(profile)
	return document, session.close(err)
}

// Delete implements KeyringBackend.
func (s secretService) Delete(ctx context.Context, profile string) error {
	session, err := s.open(ctx)
	if err != nil {
		return err
	}
	return session.close(session.delete(profile))
}

// busSession is a connection to the session bus, with the unlocked collection to use.
type busSession struct {
	ctx        context.Context
	conn       *dbus.Conn
	collection dbus.ObjectPath
}

func (s secretService) open(ctx context.Context) (*busSession, error) {
	address := busAddress(s.environ)
	if address == "" {
		return nil, fmt.Errorf("%w: it has no D-Bus session", ErrNoKeyring)
	}
	conn, err := dbus.Connect(address, dbus.WithContext(ctx), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Getuid()))))
	if err != nil {
		return nil, fmt.Errorf("%w: its D-Bus session cannot be reached", ErrNoKeyring)
	}
	session := &busSession{ctx: ctx, conn: conn}
	if err := session.findCollection(); err != nil {
		return nil, session.close(err)
	}
	return session, nil
}

// busAddress returns the addresses of the session bus, or "". It accepts Unix sockets only,
// since other kinds of addresses can start a program.
func busAddress(environ []string) string {
	if address := lookup(environ, "DBUS_SESSION_BUS_ADDRESS"); address != "" {
		return strings.Join(slices.DeleteFunc(strings.Split(address, ";"), func(a string) bool { return !strings.HasPrefix(a, "unix:") }), ";")
	}
	if runtime := lookup(environ, "XDG_RUNTIME_DIR"); runtime != "" {
		path := filepath.Join(runtime, "bus")
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return "unix:path=" + dbus.EscapeBusAddressValue(path)
		}
	}
	return ""
}

// close closes the connection. It returns err, with a D-Bus error converted to an error of this
// package.
func (s *busSession) close(err error) error {
	_ = s.conn.Close() // this also ends the secret session
	var fault dbus.Error
	if !errors.As(err, &fault) {
		return err
	}
	switch fault.Name {
	case "org.freedesktop.Secret.Error.IsLocked":
		return ErrKeyringLocked
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return fmt.Errorf("%w: its D-Bus session has no Secret Service", ErrNoKeyring)
	}
	if strings.HasPrefix(fault.Name, "org.freedesktop.DBus.Error.Spawn.") {
		return fmt.Errorf("%w: its Secret Service cannot be started", ErrNoKeyring)
	}
	return fmt.Errorf("the keyring failed with %.80q", fault.Name) // the text may contain secrets
}

func (s *busSession) call(path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return s.conn.Object(secretsName, path).CallWithContext(s.ctx, method, 0, args...)
}

// property reads a property of an object into to.
func (s *busSession) property(path dbus.ObjectPath, owner, name string, to any) error {
	var value dbus.Variant
	if err := s.call(path, "org.freedesktop.DBus.Properties.Get", owner, name).Store(&value); err != nil {
		return err
	}
	return value.Store(to)
}

// checkLocked returns ErrKeyringLocked if a collection or an item is locked.
func (s *busSession) checkLocked(path dbus.ObjectPath, owner string) error {
	var locked bool
	if err := s.property(path, owner, "Locked", &locked); err != nil {
		return err
	}
	if locked {
		return ErrKeyringLocked
	}
	return nil
}

// findCollection finds the login collection, or else the default one, like go-keyring. It
// returns ErrKeyringLocked if that collection is locked.
func (s *busSession) findCollection() error {
	var all []dbus.ObjectPath
	if err := s.property(secretsPath, secretsService, "Collections", &all); err != nil {
		return err
	}
	s.collection = loginCollection
	if !slices.Contains(all, s.collection) {
		if err := s.call(secretsPath, secretsService+".ReadAlias", "default").Store(&s.collection); err != nil {
			return err
		}
	}
	if s.collection == noObject {
		return fmt.Errorf("%w: its Secret Service has no default collection", ErrNoKeyring)
	}
	return s.checkLocked(s.collection, secretsCollection)
}

// secretSession opens a session that transfers secrets unencrypted. No other user can listen
// to the bus's socket.
func (s *busSession) secretSession() (path dbus.ObjectPath, err error) {
	var ignored dbus.Variant
	err = s.call(secretsPath, secretsService+".OpenSession", "plain", dbus.MakeVariant("")).Store(&ignored, &path)
	return path, err
}

func attributes(profile string) map[string]string {
	return map[string]string{"service": keyringService, "username": profile}
}

func (s *busSession) items(profile string) (items []dbus.ObjectPath, err error) {
	err = s.call(s.collection, secretsCollection+".SearchItems", attributes(profile)).Store(&items)
	return items, err
}

func (s *busSession) set(profile string, document []byte) error {
	path, err := s.secretSession()
	if err != nil {
		return err
	}
	properties := map[string]dbus.Variant{
		secretsItem + ".Label":      dbus.MakeVariant("Mimecast Proxy, profile " + profile),
		secretsItem + ".Attributes": dbus.MakeVariant(attributes(profile)),
	}
	var item, prompt dbus.ObjectPath
	err = s.call(s.collection, secretsCollection+".CreateItem", properties, ss.NewSecret(path, string(document)), true).Store(&item, &prompt)
	return withoutPrompt(prompt, err)
}

// withoutPrompt returns ErrKeyringLocked if the service wants to open a prompt. Then it has not
// made the change.
func withoutPrompt(prompt dbus.ObjectPath, err error) error {
	if err == nil && prompt != noObject {
		return ErrKeyringLocked
	}
	return err
}

func (s *busSession) get(profile string) ([]byte, error) {
	items, err := s.items(profile)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, ErrNotFound
	}
	if err := s.checkLocked(items[0], secretsItem); err != nil {
		return nil, err
	}
	path, err := s.secretSession()
	if err != nil {
		return nil, err
	}
	var text ss.Secret
	err = s.call(items[0], secretsItem+".GetSecret", path).Store(&text)
	return text.Value, err
}

func (s *busSession) delete(profile string) error {
	items, err := s.items(profile)
	if err != nil {
		return err
	}
	for _, item := range items {
		var prompt dbus.ObjectPath
		err := s.call(item, secretsItem+".Delete").Store(&prompt)
		if err := withoutPrompt(prompt, err); err != nil {
			return err
		}
	}
	return nil
}
