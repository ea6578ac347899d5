//go:build !windows

package connection

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkMode returns an error if other users can access a file or folder.
func checkMode(path string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	mode := 600
	if info.IsDir() {
		mode = 700
	}
	return fmt.Errorf("other users can use %s (mode %04o): run chmod %d %[1]s", path, info.Mode().Perm(), mode)
}

// checkOwner returns an error if another user owns a folder: the owner could change its mode.
func checkOwner(path string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: run as that user, or set HOME", path, stat.Uid)
	}
	return nil
}

func setMode(file *os.File, mode fs.FileMode) error { return file.Chmod(mode) }

func rename(from, to string) error { return os.Rename(from, to) }

// tryLock locks a file until it is closed. taken is false if another process holds the lock.
func tryLock(file *os.File) (taken bool, err error) {
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return err == nil, err
}
