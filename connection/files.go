package connection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxFile is larger than any file that this package writes, in bytes.
const maxFile = 1 << 20

// files is the file store: a folder with one file per profile.
type files struct{ dir string }

func (f files) path(profile string) string { return filepath.Join(f.dir, profile+".json") }

// Set implements vault.
func (f files) Set(_ context.Context, profile string, document []byte) error {
	if err := makePrivate(f.dir); err != nil {
		return err
	}
	if err := f.removeLeftovers(profile); err != nil {
		return err
	}
	return writePrivate(f.path(profile), document)
}

// Get implements vault.
func (f files) Get(_ context.Context, profile string) ([]byte, error) {
	text, err := readPrivate(f.path(profile))
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	return text, err
}

// Delete implements vault.
func (f files) Delete(_ context.Context, profile string) error {
	if err := f.removeLeftovers(profile); err != nil {
		return err
	}
	if err := os.Remove(f.path(profile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeLeftovers removes temporary files that a crash left behind. The caller holds the book's
// lock, so that no other process is writing.
func (f files) removeLeftovers(profile string) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if match, _ := filepath.Match(profile+".json.*", entry.Name()); match {
			err = errors.Join(err, os.Remove(filepath.Join(f.dir, entry.Name())))
		}
	}
	return err
}

// makePrivate creates a folder with mode 0700 and its missing parents, or sets that mode on an
// existing folder. It returns an error if another user owns the folder.
func makePrivate(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := makeMissing(dir); err != nil {
			return err
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder: remove it", dir)
	}
	if err := checkOwner(dir, info); err != nil {
		return err
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("other users can reach %s: run chmod 700 on it (%w)", dir, err)
	}
	return nil
}

// makeMissing creates a folder and its missing parents. It sets each mode separately, since a
// strict umask could leave a folder that its owner cannot enter.
func makeMissing(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir { // a missing drive on Windows
		return err
	}
	if err := makeMissing(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil // another process created it
	} else if err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// readPrivate returns a file's content. It rejects a file that other users can access, or that
// is larger than maxFile.
func readPrivate(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkMode(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes, so the proxy did not write it: remove it", path, maxFile)
	}
	return text, err
}

// writePrivate creates or replaces a file atomically, with mode 0600. Readers see either the
// old or the new content.
func writePrivate(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	if err := errors.Join(fill(file, content), file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	if err := rename(file.Name(), path); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

func fill(file *os.File, content []byte) error {
	if err := setMode(file, 0o600); err != nil { // regardless of the umask
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	return file.Sync()
}

// lockTimeout bounds the wait for another process to finish changing the list. That process
// makes at most three keyring calls.
const lockTimeout = 4 * keyringTimeout

// locked calls change while it holds the lock on the list. It returns an error if another
// process holds the lock for lockTimeout.
func (b Book) locked(ctx context.Context, change func() error) error {
	if err := makePrivate(b.Dir); err != nil {
		return err
	}
	path := filepath.Join(b.Dir, "connections.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // also unlocks it
	if err := setMode(file, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		if taken, err := tryLock(file); err != nil {
			return fmt.Errorf("lock %s: %w", path, err)
		} else if taken {
			return change()
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return fmt.Errorf("another process is changing the connections (%s is locked): %w", path, ctx.Err())
		}
	}
}
