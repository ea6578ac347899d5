package intercept

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func load(t *testing.T, dir string, names ...string) *Authority {
	t.Helper()
	a, err := LoadAuthority(dir, names, newTestAuthority(t, "root.example").PEM())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, parts ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first := load(t, dir, host, "127.0.0.1")
	again := load(t, dir, "127.0.0.1", strings.ToUpper(host))
	if first.Renewed() != "" || again.Renewed() != "" {
		t.Errorf("new: %q, kept: %q", first.Renewed(), again.Renewed())
	}
	if !bytes.Equal(first.PEM(), again.PEM()) || !bytes.Equal(read(t, dir, "ca.pem"), first.PEM()) {
		t.Error("the second start made another authority")
	}
	leaf, err := again.Certificate(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(first, leaf, host); err != nil {
		t.Error(err)
	}
	if bundle := read(t, dir, "bundle.pem"); !bytes.HasSuffix(bundle, first.PEM()) || len(bundle) <= len(first.PEM()) || bytes.Contains(bundle, []byte(keyPEM)) {
		t.Errorf("bundle: %s", bundle)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); left != nil {
		t.Errorf("files are left: %v", left)
	}
	if other := load(t, dir, host, "other.example"); other.Renewed() != "the names changed" || bytes.Equal(other.PEM(), first.PEM()) || !bytes.Equal(read(t, dir, "ca.pem"), other.PEM()) {
		t.Error("an authority for other names was kept")
	}
}

func TestModesOfTheFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("has no such modes")
	}
	dir := filepath.Join(t.TempDir(), "a", "ca")
	load(t, dir, host)
	for name, want := range map[string]fs.FileMode{"": 0o700, keyFile: 0o600, certificateFile: 0o644, bundleFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%q: %04o, want %04o", name, got, want)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o620} {
		if err := os.Chmod(filepath.Join(dir, keyFile), mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadAuthority(dir, []string{host}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func TestAKeyOfAnotherUserIsRejected(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	dir := t.TempDir()
	load(t, dir, host)
	if err := os.Chown(filepath.Join(dir, keyFile), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := LoadAuthority(dir, []string{host})
	if err == nil || !strings.Contains(err.Error(), "belongs to user 65534") || !strings.Contains(err.Error(), "delete the file") {
		t.Error(err)
	}
}

func TestAnAuthorityNearItsEndIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), keyFile)
	permitted, err := newConstraint([]string{host})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	first, err := loadOrMake(path, permitted, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		kept  bool
	}{{time.Hour, true}, {caLifetime - caRenewal - time.Hour, true}, {caLifetime - caRenewal + time.Hour, false}} {
		a, err := loadOrMake(path, permitted, now.Add(c.after))
		if err != nil {
			t.Fatal(err)
		}
		if kept := a.root.Equal(first.root); kept != c.kept {
			t.Errorf("after %v: kept %t", c.after, kept)
		}
		why := "it expires on " + now.Add(caLifetime).UTC().Format(time.DateOnly) + " UTC"
		if c.kept {
			why = ""
		}
		if a.Renewed() != why {
			t.Errorf("after %v: %q, want %q", c.after, a.Renewed(), why)
		}
	}
}

func TestAKeyFileThatIsNotTheProxysIsLeftAlone(t *testing.T) {
	good := t.TempDir()
	load(t, good, host)
	text := read(t, good, keyFile)
	other := t.TempDir()
	load(t, other, host)
	parts := bytes.SplitAfter(text, []byte("-----\n")) // BEGIN and END of the key, issuer and root
	theirs := bytes.SplitAfter(read(t, other, keyFile), []byte("-----\n"))
	for what, text := range map[string][]byte{
		"empty":            {},
		"cut":              text[:len(text)/2],
		"no certificate":   bytes.Join(parts[:2], nil),
		"no root":          bytes.Join(parts[:4], nil),
		"another's issuer": slices.Concat(bytes.Join(parts[:2], nil), bytes.Join(theirs[2:], nil)),
		"another's root":   slices.Concat(bytes.Join(parts[:4], nil), bytes.Join(theirs[4:], nil)),
		"text":             []byte("s3cr3t-marked"),
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, keyFile)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadAuthority(dir, []string{host})
		if err == nil || !strings.Contains(err.Error(), "Delete the file") || strings.Contains(err.Error(), "marked") {
			t.Errorf("%s: %v", what, err)
		}
		if !bytes.Equal(read(t, path), text) {
			t.Errorf("%s: the file was changed", what)
		}
		if _, err := os.Stat(filepath.Join(dir, certificateFile)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: ca.pem: %v", what, err)
		}
	}
}

func TestProcessesThatStartAtOnceShareAnAuthority(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files that another process reads cannot be replaced there")
	}
	dir := t.TempDir()
	var mu sync.Mutex
	made := map[string]bool{}
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			a, err := LoadAuthority(dir, []string{host})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			made[string(a.PEM())] = true
		})
	}
	running.Wait()
	if len(made) != 1 || !made[string(read(t, dir, certificateFile))] {
		t.Errorf("%d authorities", len(made))
	}
}

func FuzzDecodeChain(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := decodeChain(text); (err == nil) != (c != nil) {
			t.Errorf("%v, %v", c, err)
		}
	})
}
