//go:build unix

package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPipeInPlaceOfASecretFileDoesNotBlock(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if _, fault := secretFrom(t, pipe); !strings.Contains(fault, "not a regular file") {
		t.Error(fault)
	}
}

func TestPipeThatTakesAFilesPlaceDoesNotBlock(t *testing.T) {
	path := write(t, "good")
	watch(t, secretAt(path), func(t *testing.T, w *watched) {
		do(t, os.Remove(path), syscall.Mkfifo(path, 0o600))
		round()
		w.holds(t, "good", secretFile+"failed is not a regular file")
	})
}
