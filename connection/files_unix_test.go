//go:build !windows

package connection

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// saveAndKill is the variable with the folder for a child process of this test, which saves
// connections until it is killed.
const saveAndKill = "TEST_SAVE_UNTIL_KILLED"

func TestModesWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		book := Book{Dir: filepath.Join(t.TempDir(), "config", "mimecast-proxy")}
		env := filepath.Join(filepath.Dir(filepath.Dir(book.Dir)), "env")
		before := syscall.Umask(umask)
		err := errors.Join(
			book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample),
			book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample),
			WriteEnvFile(env, false, Connection{}, sample))
		syscall.Umask(before)
		if err != nil {
			t.Fatalf("umask %04o: %v", umask, err)
		}
		for path, want := range map[string]fs.FileMode{
			filepath.Dir(book.Dir): 0o700, book.Dir: 0o700, filepath.Join(book.Dir, "connections"): 0o700,
			filepath.Join(book.Dir, "connections.json"): 0o600, filepath.Join(book.Dir, "connections.lock"): 0o600,
			filepath.Join(book.Dir, "connections", "emea.json"): 0o600, env: 0o600,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("umask %04o: %s is %v, not %04o (%v)", umask, path, info.Mode(), want, err)
			}
		}
	}
}

func TestOpenFoldersAreClosed(t *testing.T) {
	book := Book{Dir: t.TempDir()}
	folder := filepath.Join(book.Dir, "connections")
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Chmod(folder, 0o777), os.Chmod(book.Dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{book.Dir, folder} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s is %v (%v)", path, info.Mode(), err)
		}
	}
}

func TestFilesOfOthersAreRefused(t *testing.T) {
	for _, name := range []string{"connections.json", "connections/emea.json"} {
		for _, mode := range []fs.FileMode{0o640, 0o602, 0o644} {
			book := Book{Dir: t.TempDir()}
			c := Connection{Profile: "emea", Store: File}
			path := filepath.Join(book.Dir, name)
			if err := errors.Join(book.Save(t.Context(), c, sample), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
			_, err := book.List()
			if name != "connections.json" {
				_, err = book.Read(t.Context(), c)
			}
			if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
				t.Errorf("%s with mode %04o: %v", name, mode, err)
			}
		}
	}
}

func TestFolderOfAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	book := Book{Dir: t.TempDir()}
	if err := os.Chown(book.Dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("save: %v", err)
	}
}

func TestLinksAreNotWrittenThrough(t *testing.T) {
	book := Book{Dir: t.TempDir()}
	target := filepath.Join(t.TempDir(), "target")
	link := filepath.Join(book.Dir, "connections", "emea.json")
	env := filepath.Join(book.Dir, "env")
	if err := errors.Join(os.WriteFile(target, []byte("mine"), 0o600), os.Mkdir(filepath.Dir(link), 0o700), os.Symlink(target, link), os.Symlink(target, env)); err != nil {
		t.Fatal(err)
	}
	if err := book.Save(t.Context(), Connection{Profile: "emea", Store: File}, sample); err != nil {
		t.Fatal(err)
	}
	if err := WriteEnvFile(env, false, Connection{}, sample); !errors.Is(err, fs.ErrExist) {
		t.Errorf("variables into a link: %v", err)
	}
	if err := WriteEnvFile(env, true, Connection{}, sample); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(target); err != nil || string(text) != "mine" {
		t.Errorf("the target was written (%v)", err)
	}
}

func TestKilledWriterLeavesWholeFiles(t *testing.T) {
	dir := t.TempDir()
	book := Book{Dir: dir}
	c := Connection{Profile: "emea", Store: File}
	for range 10 {
		child := exec.Command(os.Args[0], "-test.run=^TestSaveUntilKilled$")
		child.Env = append(os.Environ(), saveAndKill+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = bufio.NewReader(out).ReadString('\n') // the child has saved at least once
		if err := errors.Join(err, child.Process.Kill()); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		text, err := book.Read(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseCredentials(text); err != nil {
			t.Fatal(err)
		}
		if list, err := book.List(); err != nil || len(list) != 1 {
			t.Fatalf("list %v, %v", list, err)
		}
	}
	leftover := filepath.Join(dir, "connections", "emea.json.123")
	if err := errors.Join(os.WriteFile(leftover, sample.Marshal(), 0o600), book.Remove(t.Context(), "emea")); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(leftover)); err != nil || len(entries) > 0 {
		t.Errorf("after the removal there are %v (%v)", entries, err)
	}
}

func TestSaveUntilKilled(t *testing.T) {
	dir := os.Getenv(saveAndKill)
	if dir == "" {
		t.Skip("it is a child process of another test")
	}
	for {
		if err := (Book{Dir: dir}).Save(t.Context(), Connection{Profile: "emea", Store: File}, sample); err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("saved\n")
	}
}
