package proxy

import (
	"cmp"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// batched is a connection that many requests share, as HTTP/2's does. Each of
// them writes for itself, and a system call is the dearest thing that the proxy
// does for a request: where many are at it, those that are ready at the same time
// share one.
//
// As with what the kernel has taken, what a write has returned for may yet be
// lost; the connection is closed then, so that whoever reads from it learns of
// that.
type batched struct {
	net.Conn
	many func() bool // whether many requests are at it; nil until it is shared

	mu      sync.Mutex // guards what follows; not held while writing to Conn
	changed sync.Cond  // a write has ended, or none is due any more
	waiting []byte     // to be written next
	spare   []byte     // what waits while the other is written
	writing bool       // somebody writes what is waiting
	due     bool       // a goroutine is about to
	err     error      // of a write
}

const (
	// batchSize is how many bytes are written at once without waiting for more:
	// the headers of some eight requests. More than that would let Mimecast
	// and the proxy wait for each other.
	batchSize = 800
	// maxBatch is how many bytes may wait while others are written.
	maxBatch = 64 << 10
)

func newBatched(c net.Conn) *batched {
	b := &batched{Conn: c}
	b.changed.L = &b.mu
	return b
}

// share is to be called before anybody else writes: from then on writes are put
// together, while many reports that there are many.
func (b *batched) share(many func() bool) { b.many = many }

// Write implements net.Conn.
func (b *batched) Write(p []byte) (int, error) {
	if b.many == nil {
		return b.Conn.Write(p)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.writing && len(b.waiting) >= maxBatch {
		b.changed.Wait()
	}
	alone := len(p) >= batchSize || !b.many()
	switch {
	case b.err != nil:
		return 0, b.err
	case alone && !b.writing && len(b.waiting) == 0:
		b.send(p)
		b.write() // what came meanwhile
		return len(p), b.err
	}
	b.waiting = append(b.waiting, p...)
	switch {
	case b.writing:
	case alone, len(b.waiting) >= batchSize:
		b.write()
	case !b.due:
		b.due = true
		go b.writeSoon()
	}
	return len(p), b.err
}

// Read implements net.Conn. Where it ended because a write was lost, that is why.
func (b *batched) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if errors.Is(err, net.ErrClosed) {
		b.mu.Lock()
		defer b.mu.Unlock()
		err = cmp.Or(b.err, err)
	}
	return n, err
}

// writeSoon writes what is waiting once whoever is ready to write has done so. It
// does not outlive the connection, which waits for it.
func (b *batched) writeSoon() {
	runtime.Gosched()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = false
	if !b.writing {
		b.write()
	}
	b.changed.Broadcast()
}

// write writes until nothing is waiting. The lock is held, as for send.
func (b *batched) write() {
	for len(b.waiting) > 0 && b.err == nil {
		batch := b.waiting
		b.waiting = b.spare[:0]
		b.send(batch)
		b.spare = batch
	}
}

// send writes p, and lets the lock go meanwhile.
func (b *batched) send(p []byte) {
	b.writing = true
	b.mu.Unlock()
	_, err := b.Conn.Write(p)
	b.mu.Lock()
	b.writing = false
	if b.err = err; err != nil {
		_ = b.Conn.Close()
	}
	b.changed.Broadcast()
}

// settle waits until all is written, or cannot be.
func (b *batched) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.writing || b.due {
		b.changed.Wait()
	}
}

// SetWriteDeadline implements net.Conn. One that has passed is how crypto/tls
// ends writing after its last word, which has to be out by then.
func (b *batched) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		b.settle()
	}
	return b.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn.
func (b *batched) Close() error {
	err := b.Conn.Close()
	b.settle()
	return err
}
