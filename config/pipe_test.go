//go:build unix

package config_test

import (
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
