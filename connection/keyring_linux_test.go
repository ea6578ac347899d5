package connection

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	ss "github.com/zalando/go-keyring/secret_service"

	"mimecast-proxy/internal/keyringtest"
)

func TestKeyringStoresReplacesAndDeletes(t *testing.T) {
	book := Book{Dir: t.TempDir(), Environ: keyringtest.Start(t)}
	if err := book.KeyringState(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := Connection{Profile: "emea", Store: Keyring}
	other := Connection{Profile: "apac", Store: Keyring}
	if err := book.Save(t.Context(), other, credentials("other-id-0123456", "other-secret")); err != nil {
		t.Fatal(err)
	}
	for _, creds := range []Credentials{sample, credentials("second-id-01234", `s"e\c'ret€-`+marked)} {
		if err := book.Save(t.Context(), c, creds); err != nil {
			t.Fatal(err)
		}
		text, err := book.Read(t.Context(), c)
		if err != nil || !bytes.Equal(text, creds.Marshal()) {
			t.Fatalf("the entry differs from what was saved (%v)", err)
		}
	}
	if err := book.Remove(t.Context(), "emea"); err != nil {
		t.Fatal(err)
	}
	if _, err := book.Read(t.Context(), c); !errors.Is(err, ErrNotFound) {
		t.Errorf("after its removal: %v", err)
	}
	if text, err := book.Read(t.Context(), other); err != nil || !strings.Contains(string(text), "other-secret") {
		t.Errorf("the other profile: %v", err)
	}
}

func TestKeyringIsFoundByTheRuntimeFolder(t *testing.T) {
	environ := slices.DeleteFunc(keyringtest.Start(t), func(e string) bool { return strings.HasPrefix(e, "DBUS_") })
	if err := (Book{Environ: environ}).KeyringState(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLockedKeyringIsNotWaitedFor(t *testing.T) {
	book := Book{Dir: t.TempDir(), Environ: keyringtest.Start(t)}
	c := Connection{Profile: "emea", Store: Keyring}
	if err := book.Save(t.Context(), c, sample); err != nil {
		t.Fatal(err)
	}
	keyringtest.Lock(t, book.Environ)
	if err := book.KeyringState(t.Context()); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("state: %v", err)
	}
	if _, err := book.Read(t.Context(), c); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("read: %v", err)
	}
	if err := book.Save(t.Context(), c, sample); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("save: %v", err)
	}
	if err := book.Remove(t.Context(), c.Profile); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("remove: %v", err)
	}
	if _, err := book.Find(c.Profile); err != nil {
		t.Errorf("the connection has left the list, and its credentials are there: %v", err)
	}
	keyringtest.Unlock(t, book.Environ)
	if text, err := book.Read(t.Context(), c); err != nil || !bytes.Equal(text, sample.Marshal()) {
		t.Errorf("unlocked again: %v", err)
	}
}

func TestAbsentKeyring(t *testing.T) {
	// A library that looks for a bus would start these programs.
	bin := t.TempDir()
	started := filepath.Join(bin, "started")
	for _, name := range []string{"dbus-launch", "dbus-daemon"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\ntouch "+started+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	empty := t.TempDir()
	for name, environ := range map[string][]string{
		"no environment":    nil,
		"no bus":            {"HOME=" + empty, "XDG_RUNTIME_DIR=" + empty},
		"no socket":         {"DBUS_SESSION_BUS_ADDRESS=unix:path=" + empty + "/bus"},
		"autolaunch":        {"DBUS_SESSION_BUS_ADDRESS=autolaunch:"},
		"a program":         {"DBUS_SESSION_BUS_ADDRESS=unixexec:path=" + bin + "/dbus-launch"},
		"no Secret Service": keyringtest.Bus(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", bin)
			err := Book{Environ: environ}.KeyringState(t.Context())
			if !errors.Is(err, ErrNoKeyring) {
				t.Errorf("state: %v", err)
			}
			if _, err := os.Stat(started); err == nil {
				t.Error("a program was started")
			}
		})
	}
}

// prompting is a Secret Service that requires a prompt for each change.
type prompting struct{ prompted atomic.Bool }

func (*prompting) Get(_, name string) (dbus.Variant, *dbus.Error) {
	if name == "Collections" {
		return dbus.MakeVariant([]dbus.ObjectPath{loginCollection}), nil
	}
	return dbus.MakeVariant(false), nil // not locked
}

func (*prompting) OpenSession(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
	return dbus.MakeVariant(""), "/session", nil
}

func (*prompting) SearchItems(map[string]string) ([]dbus.ObjectPath, *dbus.Error) {
	return []dbus.ObjectPath{"/item"}, nil
}

func (*prompting) CreateItem(map[string]dbus.Variant, ss.Secret, bool) (item, prompt dbus.ObjectPath, err *dbus.Error) {
	return "/", "/prompt", nil
}

func (*prompting) Delete() (prompt dbus.ObjectPath, err *dbus.Error) { return "/prompt", nil }

func (p *prompting) Prompt(string) *dbus.Error {
	p.prompted.Store(true)
	return nil
}

// serve provides the service on a bus until the test ends.
func (p *prompting) serve(t *testing.T, environ []string) {
	t.Helper()
	conn, err := dbus.Connect(busAddress(environ))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for _, path := range []dbus.ObjectPath{secretsPath, loginCollection, "/item", "/prompt"} {
		for _, kind := range []string{"org.freedesktop.DBus.Properties", secretsService, secretsCollection, secretsItem, "org.freedesktop.Secret.Prompt"} {
			if err := conn.Export(p, path, kind); err != nil {
				t.Fatal(err)
			}
		}
	}
	if reply, err := conn.RequestName(secretsName, 0); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("reply %v, %v", reply, err)
	}
}

func TestPromptStaysClosed(t *testing.T) {
	book := Book{Dir: t.TempDir(), Environ: keyringtest.Bus(t)}
	service := &prompting{}
	service.serve(t, book.Environ)
	if err := book.KeyringState(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: Keyring}, sample); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("save: %v", err)
	}
	if err := book.keyring().Delete(t.Context(), "emea"); !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("delete: %v", err)
	}
	if service.prompted.Load() {
		t.Error("a prompt was opened")
	}
}

// If a bus accepts connections and never responds, the call fails and no goroutine remains.
func TestBusThatDoesNotRespond(t *testing.T) {
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := (Book{Environ: []string{"XDG_RUNTIME_DIR=" + dir}}).KeyringState(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("state: %v", err)
	}
}
