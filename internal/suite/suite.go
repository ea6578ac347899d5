// Package suite says how a package's tests run: how many at a time, and which of them are
// too slow for -short.
package suite

import (
	"flag"
	"strconv"
	"testing"
)

// Parallel lets n tests run at the same time, unless -parallel is set. It is for packages
// whose tests mostly wait. Call it in TestMain.
func Parallel(n int) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set(f.Name, strconv.Itoa(n)) // a number is always valid
	}
}

// Slow skips the test if -short is set.
func Slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
}
