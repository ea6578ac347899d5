package config_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/event"
)

// watched is a Watcher in a synctest bubble, and its reports.
type watched struct {
	cfg    config.Config
	reread chan struct{}

	mu       sync.Mutex
	reports  []string
	together [][]string
}

// said returns the Watcher's reports since the last call, one per line.
func (w *watched) said() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.reports = nil }()
	return strings.Join(w.reports, "\n")
}

// watch runs f while a Watcher checks a configuration's files.
func watch(t *testing.T, variables []string, f func(t *testing.T, w *watched)) {
	t.Helper()
	cfg, err := config.Parse(variables, nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := &watched{cfg: cfg, reread: make(chan struct{}, 1)}
		watcher := &config.Watcher{
			Files: cfg.Files,
			Report: func(f *config.File, o event.ReloadOutcome, err error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if err != nil && strings.Contains(err.Error(), marked) {
					t.Errorf("the report leaks: %v", err)
				}
				w.reports = append(w.reports, fmt.Sprintf("%s %s %v", f.Variable, o, err))
			},
			Changed: func(variables []string) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.together = append(w.together, variables)
			},
		}
		done := make(chan struct{})
		go func() { defer close(done); watcher.Run(ctx, w.reread) }()
		f(t, w)
		stop()
		<-done
	})
}

// round waits until the Watcher has seen a change.
func round() { time.Sleep(2*time.Second + 2*time.Second); synctest.Wait() }

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func secretAt(path string) []string {
	return []string{"MIMECAST_CLIENT_ID=id", "MIMECAST_CLIENT_SECRET_FILE=" + path}
}

func (w *watched) holds(t *testing.T, want, said string) {
	t.Helper()
	equal(t, "the secret in force", w.cfg.ClientSecret.Value().Reveal(), want)
	equal(t, "what was said", w.said(), said)
}

const secretFile = "MIMECAST_CLIENT_SECRET_FILE "

func TestChangedFileIsTakenUp(t *testing.T) {
	path := write(t, "first\n")
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		round()
		w.holds(t, "first", "")
		put(t, path, "second\n")
		round()
		w.holds(t, "second", secretFile+"changed <nil>")
		round()
		w.holds(t, "second", "")
		equal(t, "changes", w.together, [][]string{{"MIMECAST_CLIENT_SECRET_FILE"}})
	})
}

func TestRewriteOfTheSameSizeAndTimeIsSeen(t *testing.T) {
	path := write(t, "first")
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	do(t, os.Chtimes(path, old, old))
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		put(t, path, "FIRST")
		do(t, os.Chtimes(path, old, old))
		round()
		w.holds(t, "FIRST", secretFile+"changed <nil>")
	})
}

func TestSwapOfLinksIsSeenAndFilesChangeTogether(t *testing.T) {
	// A kubelet updates files this way: they are links into ..data, a link to a
	// directory, and a rename replaces that link.
	dir := t.TempDir()
	version := func(name, id, secret string) {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		put(t, filepath.Join(dir, name, "id"), id)
		put(t, filepath.Join(dir, name, "secret"), secret)
		do(t, os.Symlink(name, filepath.Join(dir, "..tmp")), os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
	version("..1", "id-1", "secret-1")
	do(t, os.Symlink("..data/id", filepath.Join(dir, "id")), os.Symlink("..data/secret", filepath.Join(dir, "secret")))
	watch(t, []string{"MIMECAST_CLIENT_ID_FILE=" + filepath.Join(dir, "id"), "MIMECAST_CLIENT_SECRET_FILE=" + filepath.Join(dir, "secret")}, func(t *testing.T, w *watched) {
		version("..2", "id-2", "secret-2")
		do(t, os.RemoveAll(filepath.Join(dir, "..1")))
		round()
		equal(t, "ID", w.cfg.ClientID.Value().Reveal(), "id-2")
		w.holds(t, "secret-2", "MIMECAST_CLIENT_ID_FILE changed <nil>\n"+secretFile+"changed <nil>")
		equal(t, "changes", w.together, [][]string{{"MIMECAST_CLIENT_ID_FILE", "MIMECAST_CLIENT_SECRET_FILE"}})
	})
}

func TestVersionThatCannotBeUsedIsSaidOnceAndChangesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		says  string
	}{
		"missing":   {func(*testing.T, string) {}, "cannot be read: no such file or directory"},
		"empty":     {func(t *testing.T, path string) { put(t, path, "") }, "is empty"},
		"directory": {func(t *testing.T, path string) { do(t, os.Mkdir(path, 0o700)) }, "is not a regular file"},
		"dangling":  {func(t *testing.T, path string) { do(t, os.Symlink("/nowhere", path)) }, "cannot be read: no such file or directory"},
		"loop":      {func(t *testing.T, path string) { do(t, os.Symlink(path, path)) }, "cannot be read: too many levels of symbolic links"},
		"too large": {func(t *testing.T, path string) { put(t, path, strings.Repeat("x", 1<<20)) }, "is larger than 64KiB"},
		"two lines": {func(t *testing.T, path string) { put(t, path, marked+"\n"+marked) }, "has a control character in it, such as a line break"},
		"UTF-16":    {func(t *testing.T, path string) { put(t, path, "\xff\xfex\x00") }, "is in UTF-16, not UTF-8"},
		"quoted":    {func(t *testing.T, path string) { put(t, path, `"`+marked+`"`) }, "has quotation marks around its value, which count as part of it"},
	} {
		path := write(t, "good")
		watch(t, secretAt(path), func(t *testing.T, w *watched) {
			t.Log(name)
			do(t, os.Remove(path))
			c.spoil(t, path)
			round()
			w.holds(t, "good", secretFile+"failed "+c.says)
			round()
			round()
			w.holds(t, "good", "")
			do(t, os.RemoveAll(path))
			put(t, path, "good")
			round()
			w.holds(t, "good", secretFile+"restored <nil>")
			do(t, os.RemoveAll(path))
			c.spoil(t, path)
			round()
			w.said()
			do(t, os.RemoveAll(path))
			put(t, path, "better")
			round()
			w.holds(t, "better", secretFile+"changed <nil>")
		})
	}
}

func TestUnreadableFileKeepsWhatIsInForce(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads every file")
	}
	path := write(t, "good")
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		do(t, os.Chmod(path, 0))
		round()
		w.holds(t, "good", secretFile+"failed cannot be read: permission denied")
	})
}

func TestFileThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	path := write(t, "good")
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		time.Sleep(1900 * time.Millisecond)
		for _, part := range []string{"", "be", "bett", "better"} {
			put(t, path, part)
			time.Sleep(200 * time.Millisecond)
		}
		round()
		w.holds(t, "better", secretFile+"changed <nil>")
	})
}

func TestFileThatNeverSettlesKeepsNoOtherBack(t *testing.T) {
	path, restless := write(t, "good"), write(t, "id-0")
	watch(t, []string{"MIMECAST_CLIENT_ID_FILE=" + restless, "MIMECAST_CLIENT_SECRET_FILE=" + path}, func(t *testing.T, w *watched) {
		put(t, path, "better")
		for i := range 100 {
			put(t, restless, fmt.Sprint("id-", i))
			time.Sleep(100 * time.Millisecond)
		}
		w.holds(t, "better", secretFile+"changed <nil>")
	})
}

func TestRereadDoesNotWaitForTheNextCheck(t *testing.T) {
	path := write(t, "first")
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		put(t, path, "second")
		time.Sleep(100 * time.Millisecond)
		w.reread <- struct{}{}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		w.holds(t, "second", secretFile+"changed <nil>")
	})
}

func TestKeysAndAuthoritiesAreReloaded(t *testing.T) {
	one, two := httptest.NewTLSServer(nil), httptest.NewTLSServer(nil)
	one.Close()
	two.Close()
	keys, ca := write(t, "one\n"), write(t, certificate(one))
	watch(t, environ("PROXY_API_KEY_FILE="+keys, "MIMECAST_CA_FILE="+ca), func(t *testing.T, w *watched) {
		put(t, keys, "one\ntwo\n")
		put(t, ca, certificate(one)+certificate(two))
		round()
		equal(t, "said", w.said(), "MIMECAST_CA_FILE changed <nil>\nPROXY_API_KEY_FILE changed <nil>")
		equal(t, "keys", len(w.cfg.APIKey.Values()), 2)
		equal(t, "certificates", len(w.cfg.CA.Certificates()), 2)
		half := certificate(one) + certificate(two)[:500]
		put(t, ca, half)
		put(t, keys, "\n")
		round()
		said := w.said()
		if !strings.Contains(said, "MIMECAST_CA_FILE failed has a malformed certificate, number 2, at line "+fmt.Sprint(strings.Count(certificate(one), "\n")+1)) || !strings.Contains(said, "PROXY_API_KEY_FILE failed is empty") {
			t.Error(said)
		}
		equal(t, "keys", len(w.cfg.APIKey.Values()), 2)
		equal(t, "certificates", len(w.cfg.CA.Certificates()), 2)
	})
}

func TestValuesOfVariablesAreNotWatched(t *testing.T) {
	cfg := parse(t, "PROXY_API_KEY="+strings.Repeat("k", 20))
	if len(cfg.Files) != 0 {
		t.Error(cfg.Files)
	}
	cfg = parse(t, "PROXY_API_KEY_FILE="+write(t, strings.Repeat("k", 20)))
	if !slices.ContainsFunc(cfg.Files, func(f *config.File) bool { return f.Variable == "PROXY_API_KEY_FILE" }) {
		t.Error(cfg.Files)
	}
}
