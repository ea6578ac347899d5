package connection

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

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
	// A program of this name would be started by a library that looks for a bus.
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

// A Secret Service that wants to ask the user first is taken as locked, and its prompt
// stays closed.
func TestPromptIsTakenAsALock(t *testing.T) {
	for prompt, want := range map[dbus.ObjectPath]error{"/": nil, "/prompt/1": ErrKeyringLocked} {
		if err := withoutPrompt(prompt, nil); !errors.Is(err, want) {
			t.Errorf("prompt %s: %v", prompt, err)
		}
	}
}
