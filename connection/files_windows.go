package connection

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// Windows has no file modes. The user's configuration folder grants access only to the user,
// administrators and the system, and new files in it inherit these permissions.

func checkMode(string, fs.FileInfo) error { return nil }

func checkOwner(string, fs.FileInfo) error { return nil }

func setMode(*os.File, fs.FileMode) error { return nil }

// rename retries for 1 s, since renaming fails while a reader has the file open.
func rename(from, to string) error {
	err := os.Rename(from, to)
	for i := 0; i < 100 && err != nil; i++ {
		time.Sleep(10 * time.Millisecond)
		err = os.Rename(from, to)
	}
	return err
}

// tryLock locks a file until it is closed. taken is false if another process holds the lock.
func tryLock(file *os.File) (taken bool, err error) {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err = windows.LockFileEx(windows.Handle(file.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}
