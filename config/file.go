package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readFile appends a file of at most limit bytes to buf. The error does not contain the
// path, since a path can contain line breaks.
//
// Only regular files are allowed: a pipe would block, and would be empty on the second
// read. A pipe may replace the file at any moment, so the open is nonblocking too.
func readFile(path string, limit int64, buf *bytes.Buffer) error {
	if err := checkRegular(os.Stat(path)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return readError(err)
	}
	defer func() { _ = f.Close() }() // the file was only read
	if err := checkRegular(f.Stat()); err != nil {
		return err
	}
	if _, err := buf.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return readError(err)
	}
	if int64(buf.Len()) > limit {
		return fmt.Errorf("is larger than %v", size(limit))
	}
	return nil
}

func checkRegular(info fs.FileInfo, err error) error {
	if err != nil {
		return readError(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("is not a regular file")
	}
	return nil
}

func readError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
