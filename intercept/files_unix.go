//go:build !windows

package intercept

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkPrivate returns an error if the key file belongs to another user or is accessible to
// others.
func checkPrivate(path string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, who knows the key. Run the proxy as that user, or delete the file for a new CA", path, stat.Uid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o: others can read the key. Run chmod 600, or delete the file for a new CA", path, mode)
	}
	return nil
}
