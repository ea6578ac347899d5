package program

import (
	"bytes"
	"sync"
	"testing"
	"time"
)

// Await polls so until it returns true. It fails the test after [Patience].
func Await(t testing.TB, what string, so func() bool) {
	t.Helper()
	AwaitWithin(t, Patience, what, so)
}

// AwaitWithin is Await with another time limit. It polls less and less often, because so
// may read all of /metrics on a busy machine.
func AwaitWithin(t testing.TB, bound time.Duration, what string, so func() bool) {
	t.Helper()
	pause := 2 * time.Millisecond
	for deadline := time.Now().Add(bound); !so(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after %v", what, bound)
		}
		pause = min(pause*5/4, 50*time.Millisecond)
	}
}

// Output is what a program has written. It can be read while the program writes.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed at the next write
}

// Write implements [io.Writer].
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Await waits until found returns true for the output so far. It calls found after each
// write and also periodically, because found may check other things too.
func (o *Output) Await(t testing.TB, what string, found func(string) bool) {
	t.Helper()
	timeout := time.After(Patience)
	for {
		o.mu.Lock()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more, text := o.more, o.text.String()
		o.mu.Unlock()
		if found(text) {
			return
		}
		select {
		case <-more:
		case <-time.After(100 * time.Millisecond):
		case <-timeout:
			t.Fatalf("%s did not come in %v", what, Patience)
		}
	}
}
