package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDestinationOfAWrite(t *testing.T) {
	for line, want := range map[string]string{
		`30114 write(6<TCP:[127.0.0.1:18180->127.0.0.1:48112]>, ""..., 118) = 118`: toClient,
		`30114 write(6<TCP:[127.0.0.1:48112->127.0.0.1:18443]>, ""..., 118) = 118`: toUpstream,
		`  114 write(2</tmp/log>, ""..., 80 <unfinished ...>`:                      toLog,
		`30114 write(4<anon_inode:[eventfd]>, ""..., 8) = 8`:                       toItself,
		`30114 <... write resumed>) = 118`:                                         "",
		``:                                                                         "",
	} {
		if got := destination(line); got != want {
			t.Errorf("destination(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestPerfCounts(t *testing.T) {
	got := events.parse("# started on Fri\n\n4200,,instructions:u,100,100.00,,\n7,,syscalls:sys_enter_write,1,100.00,,\n3,,syscalls:sys_enter_writev,1,100.00,,\n<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n")
	if len(got) != 2 || got[instructions] != 4200 || got[writes] != 10 {
		t.Errorf("got %v", got)
	}
}

func TestGoals(t *testing.T) {
	for _, test := range []struct {
		goal      goal
		own, base []float64
		want      string
	}{
		{goal{ratioAtMost, .9}, []float64{8, 9, 30}, []float64{10, 10, 10}, "0.90 | ≤ 0.90 times | yes"},
		{goal{ratioAtLeast, 1.3}, []float64{12}, []float64{10}, "1.20 | ≥ 1.30 times | **no**"},
		{goal{beyondAtMost, .1}, []float64{2.27}, []float64{2.25}, "0.020 | ≤ 0.1 more | yes"},
		{goal{atMost, 96}, []float64{97}, nil, "97 | ≤ 96 | **no**"},
		{goal{ratioAtMost, .9}, []float64{1}, nil, " | ≤ 0.90 times |"},
		{goal{}, []float64{5}, []float64{10}, "0.50 | |"},
		{goal{}, []float64{5}, nil, " |  |"},
	} {
		r := row{values: map[string][]float64{ours: test.own, naive: test.base}}
		if got := r.verdict(test.goal); got != test.want {
			t.Errorf("%v of %v and %v: %q, want %q", test.goal, test.own, test.base, got, test.want)
		}
	}
}

func TestTablesAreReplacedInTheirDocument(t *testing.T) {
	dir := t.TempDir()
	document := filepath.Join(dir, "a.md")
	if err := os.WriteFile(document, []byte("before\n<!-- bench: x -->\nold\n<!-- end of x -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceBlocks(dir, map[string]string{"x": "new"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if want := "before\n<!-- bench: x -->\n\nnew\n<!-- end of x -->\nafter\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := replaceBlocks(dir, map[string]string{"y": "new"}); err == nil {
		t.Error("a table without a place was dropped silently")
	}
}
