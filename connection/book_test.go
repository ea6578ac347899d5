package connection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a keyring in memory.
type memory struct {
	mu      sync.Mutex
	entries map[string][]byte
	err     error  // returned by each call
	onSet   func() // called by each Set
}

func (m *memory) State(context.Context) error { return m.err }

func (m *memory) Set(_ context.Context, profile string, document []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onSet != nil {
		m.onSet()
	}
	if m.err == nil {
		if m.entries == nil {
			m.entries = map[string][]byte{}
		}
		m.entries[profile] = document
	}
	return m.err
}

func (m *memory) Get(_ context.Context, profile string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if document, ok := m.entries[profile]; ok && m.err == nil {
		return document, nil
	}
	return nil, errors.Join(m.err, ErrNotFound)
}

func (m *memory) Delete(_ context.Context, profile string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		delete(m.entries, profile)
	}
	return m.err
}

func TestBookKeepsWhatIsSaved(t *testing.T) {
	for _, store := range []Store{Keyring, File} {
		t.Run(string(store), func(t *testing.T) {
			book := Book{Dir: filepath.Join(t.TempDir(), "a", "b"), Keyring: &memory{}}
			if list, err := book.List(); err != nil || len(list) != 0 {
				t.Fatalf("before the first: %v, %v", list, err)
			}
			tested := time.Date(2026, 11, 26, 20, 0, 0, 0, time.UTC)
			emea := Connection{Profile: "emea", Store: store, Region: "uk", Account: "Harbour Mills Ltd", Tested: tested}
			apac := Connection{Profile: "apac", Store: store, BaseURL: "https://api.example.com", TokenURL: "https://api.example.com/t", CAFile: "/ca.pem", Tested: tested}
			for _, c := range []Connection{emea, apac} {
				if err := book.Save(t.Context(), c, sample); err != nil {
					t.Fatal(err)
				}
			}
			emea.IDStart, apac.IDStart = "abcdefgh", "abcdefgh"
			if list, err := book.List(); err != nil || !slices.Equal(list, []Connection{apac, emea}) {
				t.Errorf("list %+v, %v", list, err)
			}
			if found, err := book.Find("emea"); err != nil || found != emea {
				t.Errorf("found %+v, %v", found, err)
			}
			if text, err := book.Read(t.Context(), emea); err != nil || !bytes.Equal(text, sample.Marshal()) {
				t.Errorf("the document differs (%v)", err)
			}
			checkListHasNoSecret(t, book)
			if err := book.Remove(t.Context(), "emea"); err != nil {
				t.Fatal(err)
			}
			if _, err := book.Find("emea"); !errors.Is(err, ErrNotFound) {
				t.Errorf("find after its removal: %v", err)
			}
			if _, err := book.Read(t.Context(), emea); !errors.Is(err, ErrNotFound) {
				t.Errorf("read after its removal: %v", err)
			}
			if err := book.Remove(t.Context(), "emea"); !errors.Is(err, ErrNotFound) {
				t.Errorf("a second removal: %v", err)
			}
		})
	}
}

func checkListHasNoSecret(t *testing.T, book Book) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(book.Dir, "connections.json"))
	if err != nil || bytes.Contains(text, []byte(marked)) || bytes.Contains(text, []byte(sample.ClientID.Reveal())) {
		t.Errorf("the list (%v):\n%s", err, text)
	}
}

func TestMoveToAnotherStoreLeavesNoCopy(t *testing.T) {
	ring := &memory{}
	book := Book{Dir: t.TempDir(), Keyring: ring}
	file := filepath.Join(book.Dir, "connections", "emea.json")
	for _, store := range []Store{File, Keyring, File} {
		if err := book.Save(t.Context(), Connection{Profile: "emea", Store: store}, sample); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(file)
		if inFile, inRing := err == nil, len(ring.entries) == 1; inFile != (store == File) || inRing != (store == Keyring) {
			t.Errorf("stored in %s: in file %v, in keyring %v", store, inFile, inRing)
		}
		if c, err := book.Find("emea"); err != nil || c.Store != store {
			t.Errorf("the list says %s (%v)", c.Store, err)
		}
	}
}

func TestMoveSaysIfTheOldCopyRemains(t *testing.T) {
	ring := &memory{}
	book := Book{Dir: t.TempDir(), Keyring: ring}
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: Keyring}, sample); err != nil {
		t.Fatal(err)
	}
	ring.err = ErrKeyringLocked
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample); !errors.Is(err, ErrOldCopy) || !errors.Is(err, ErrKeyringLocked) {
		t.Errorf("with a locked keyring: %v", err)
	}
	if c, err := book.Find("emea"); err != nil || c.Store != File {
		t.Errorf("it is not stored: %+v, %v", c, err)
	}
}

func TestCredentialsDoNotStayIfTheListCannotBeWritten(t *testing.T) {
	ring := &memory{}
	book := Book{Dir: t.TempDir(), Keyring: ring}
	ring.onSet = func() { // put a folder in place of the list's file
		if err := os.MkdirAll(filepath.Join(book.Dir, "connections.json", "x"), 0o700); err != nil {
			t.Error(err)
		}
	}
	err := book.Save(t.Context(), Connection{Profile: "emea", Store: Keyring}, sample)
	if err == nil || len(ring.entries) != 0 {
		t.Errorf("error %v, entries of %v", err, slices.Collect(maps.Keys(ring.entries)))
	}
}

func TestTwoAtOnceLoseNothing(t *testing.T) {
	dir := t.TempDir()
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			profile := fmt.Sprintf("p%d", i)
			book := Book{Dir: dir}
			if err := book.Save(t.Context(), Connection{Profile: profile, Store: File}, sample); err != nil {
				t.Error(err)
			}
			if i%2 == 1 {
				if err := book.Remove(t.Context(), profile); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	list, err := Book{Dir: dir}.List()
	if err != nil || len(list) != 10 {
		t.Errorf("%d connections are left: %v", len(list), err)
	}
}

func TestWaitForALockEndsWithTheContext(t *testing.T) {
	book := Book{Dir: t.TempDir()}
	err := book.locked(t.Context(), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return book.Save(ctx, Connection{Profile: "emea", Store: File}, sample)
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second writer: %v", err)
	}
}

func TestWhatCannotBeSaved(t *testing.T) {
	book := Book{Dir: t.TempDir(), Keyring: &memory{}}
	for name, test := range map[string]struct {
		c     Connection
		creds Credentials
	}{
		"a path for a profile": {Connection{Profile: "../x", Store: File}, sample},
		"no profile":           {Connection{Store: File}, sample},
		"a long profile":       {Connection{Profile: strings.Repeat("a", 41), Store: File}, sample},
		"no store":             {Connection{Profile: "emea"}, sample},
		"no client ID":         {Connection{Profile: "emea", Store: File}, credentials("", marked)},
		"no secret":            {Connection{Profile: "emea", Store: File}, credentials("id", "")},
		"a secret with blanks": {Connection{Profile: "emea", Store: File}, credentials("id", marked+" x")},
		"not UTF-8":            {Connection{Profile: "emea", Store: File}, credentials("id", marked+"\xff")},
		"a long secret":        {Connection{Profile: "emea", Store: File}, credentials("id", strings.Repeat(marked, 100))},
	} {
		if err := book.Save(t.Context(), test.c, test.creds); err == nil || strings.Contains(err.Error(), marked) || len(err.Error()) > 140 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := book.List(); err != nil || len(list) > 0 {
		t.Errorf("it was saved: %v, %v", list, err)
	}
}

func TestDamagedFiles(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "a path for a profile": `[{"profile":"../../x","store":"file"}]`, "no store": `[{"profile":"emea","store":"cloud"}]`,
	} {
		book := Book{Dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(book.Dir, "connections.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := book.List(); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseCredentials(t *testing.T) {
	got, err := ParseCredentials(sample.Marshal())
	if err != nil || !got.ClientID.Equal(sample.ClientID) || !got.ClientSecret.Equal(sample.ClientSecret) {
		t.Errorf("the document cannot be read back: %v", err)
	}
	for _, text := range []string{
		"", "{}", marked, `{"client_id":"a"}`, `{"client_id":"a","client_secret":""}`, `{"client_id":"a","client_secret":"` + marked + `"} x`,
		`{"client_id":"a","client_secret":"` + marked + `","region":"uk"}`, `{"client_id":"a","client_secret":["` + marked + `"]}`, `{"client_id":"a","client_secret":"` + marked + `\n"}`,
	} {
		if _, err := ParseCredentials([]byte(text)); err == nil || strings.Contains(err.Error(), marked) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add(sample.Marshal())
	f.Add([]byte(`{"client_id":"a","client_secret":"b"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		creds, err := ParseCredentials(text)
		if err != nil {
			return
		}
		again, err := ParseCredentials(creds.Marshal())
		if err != nil || !again.ClientID.Equal(creds.ClientID) || !again.ClientSecret.Equal(creds.ClientSecret) {
			t.Errorf("%q is not read back: %v", text, err)
		}
	})
}

func TestBeginningOfTheClientID(t *testing.T) {
	for id, want := range map[string]string{"": "", "a": "", "abcd": "ab", "äöüß": "äö", strings.Repeat("x", 40): "xxxxxxxx"} {
		if got := idStart(id); got != want {
			t.Errorf("of %q: %q, not %q", id, got, want)
		}
	}
}

func TestDir(t *testing.T) {
	join := filepath.Join
	abs := t.TempDir() // absolute on every system
	for name, test := range map[string]struct {
		system  string
		environ []string
		want    string
	}{
		"XDG":              {"linux", []string{"HOME=/h", "XDG_CONFIG_HOME=" + abs}, join(abs, "mimecast-proxy")},
		"home":             {"linux", []string{"HOME=" + abs}, join(abs, ".config", "mimecast-proxy")},
		"the last counts":  {"linux", []string{"HOME=/h", "HOME=" + abs}, join(abs, ".config", "mimecast-proxy")},
		"relative":         {"linux", []string{"HOME=/h", "XDG_CONFIG_HOME=x"}, ""},
		"nothing":          {"linux", nil, ""},
		"macOS":            {"darwin", []string{"HOME=" + abs}, join(abs, "Library", "Application Support", "mimecast-proxy")},
		"macOS, nothing":   {"darwin", []string{"XDG_CONFIG_HOME=/x"}, ""},
		"Windows":          {"windows", []string{"AppData=" + abs}, join(abs, "mimecast-proxy")},
		"Windows, nothing": {"windows", []string{"HOME=/x"}, ""},
	} {
		got, err := dir(test.system, test.environ)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// stuck is a keyring that does not respond and ignores its context.
type stuck struct {
	memory
	entered chan struct{}
	release chan struct{}
}

func (s *stuck) State(context.Context) error {
	s.entered <- struct{}{}
	<-s.release
	return nil
}

func TestKeyringThatDoesNotRespond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := &stuck{entered: make(chan struct{}, 1), release: make(chan struct{})}
		start := time.Now()
		if err := (Book{Keyring: ring}).KeyringState(t.Context()); !errors.Is(err, ErrKeyringTimeout) {
			t.Errorf("state: %v", err)
		}
		if took := time.Since(start); took != keyringTimeout {
			t.Errorf("it took %v", took)
		}
		close(ring.release)
		synctest.Wait()
	})
}

func TestStuckCallsDoNotPileUp(t *testing.T) {
	ring := &stuck{entered: make(chan struct{}, 100), release: make(chan struct{})}
	book := Book{Keyring: ring}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-ring.entered; cancel() }()
	for range 20 {
		if err := book.KeyringState(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("state: %v", err)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Millisecond, context.Canceled)
		defer cancel()
	}
	if n := len(ring.entered); n != 0 {
		t.Errorf("%d more calls were made", n)
	}
	close(ring.release)
	if err := book.KeyringState(t.Context()); err != nil {
		t.Errorf("after the stuck call has ended: %v", err)
	}
}
