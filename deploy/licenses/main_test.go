package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestModuleWithoutLicenseIsAnError(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"license.go", "NOTICE", "PATENTS"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	linked := directories{"example.test/module v1.0.0": {dir: true}}
	if _, err := render(linked); err == nil || !strings.Contains(err.Error(), "example.test/module v1.0.0") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "License-MIT"), []byte("the terms"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := render(linked)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the terms", "text of NOTICE", "text of PATENTS"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "text of license.go") {
		t.Error("source text was taken for a license")
	}
}
