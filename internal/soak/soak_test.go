package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

func TestShortSoakPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 10 seconds")
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("memory and descriptors are read from /proc")
	}
	var out bytes.Buffer
	err := run(t.Context(), []string{"-for", "2s", "-round", "1s", "-clients", "4"}, &out)
	if err != nil || !strings.Contains(out.String(), "Verdict: passed") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestWrongFlagsAreRefused(t *testing.T) {
	if err := run(t.Context(), []string{"-for", "0s"}, &bytes.Buffer{}); err == nil {
		t.Error("accepted")
	}
}

func TestShortHostileSoakPasses(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 seconds")
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("memory and descriptors are read from /proc")
	}
	var out bytes.Buffer
	err := run(t.Context(), []string{"-hostile", "-for", "2s", "-round", "1s", "-clients", "4", "-crowd", "50"}, &out)
	if err != nil || !strings.Contains(out.String(), "Verdict: passed") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
