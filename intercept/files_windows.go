package intercept

import "io/fs"

// checkPrivate accepts every file: Windows has no file modes, and files inherit the
// permissions of their folder.
func checkPrivate(string, fs.FileInfo) error { return nil }
