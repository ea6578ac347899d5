package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/problem"
)

const (
	// A body that streams is read in pieces of firstPiece bytes, and into a buffer of
	// buffers once as much comes at a time, so that clients that send nothing take
	// next to no memory.
	firstPiece = 512
	// cutWait bounds how long a request that has ended waits for the error of reading
	// its body.
	cutWait = time.Second
)

// clientBody is a client's request body. Once it streams, a goroutine reads it, so
// that an attempt can end while the client pauses: net/http waits for the Read of a
// body before it passes an early response on. Close does nothing: the server closes
// its body, and if ReverseProxy closed it too, that would wait for the client.
type clientBody struct {
	src     io.Reader
	buffers *buffers
	ended   atomic.Bool // read to its end

	failing sync.Once
	failed  chan struct{} // closed once a Read has failed
	err     error         // set before failed is closed: what it failed with

	pieces chan piece    // from the pump; unbuffered
	next   chan struct{} // to the pump: the last piece was used
	stop   chan struct{} // closed when the handler ends

	reading sync.Mutex
	rest    piece // guarded by reading: what was taken from the pump and not used yet

	mu      sync.Mutex
	done    chan struct{} // guarded by mu: closed by the pump; nil before it runs
	stopped bool          // guarded by mu
}

// piece is what one Read of the source returned.
type piece struct {
	data []byte
	err  error
}

func newClientBody(src io.Reader, b *buffers) *clientBody {
	return &clientBody{src: src, buffers: b, failed: make(chan struct{}), pieces: make(chan piece), next: make(chan struct{}, 1), stop: make(chan struct{})}
}

// Read implements io.Reader. It waits for the client, and must not be called once the
// body streams.
func (c *clientBody) Read(b []byte) (int, error) {
	n, err := c.src.Read(b)
	if errors.Is(err, io.EOF) {
		c.ended.Store(true)
	} else if err != nil {
		c.failing.Do(func() {
			c.err = err
			close(c.failed)
		})
	}
	return n, err
}

// cutShort reports whether the client closed its half of the connection before the
// body's end. It is for a request that ended: net/http ends it as soon as it has seen
// the close, and perhaps before the Read has returned.
func (c *clientBody) cutShort() bool {
	if c.ended.Load() {
		return false
	}
	wait := time.NewTimer(cutWait)
	defer wait.Stop()
	select {
	case <-c.failed:
		return errors.Is(c.err, io.ErrUnexpectedEOF)
	case <-wait.C:
		return false
	}
}

// Close implements io.Closer.
func (c *clientBody) Close() error { return nil }

// readUntil reads as Read does, but returns errBodyConsumed as soon as done is
// closed. What it does not take is there for the next call.
func (c *clientBody) readUntil(done <-chan struct{}, b []byte) (int, error) {
	if !c.start() {
		return 0, errBodyConsumed
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.rest.data) == 0 && c.rest.err == nil {
		select {
		case c.rest = <-c.pieces:
		case <-done:
		case <-c.stop:
		}
	}
	select {
	case <-done:
		return 0, errBodyConsumed
	case <-c.stop:
		return 0, errBodyConsumed
	default:
	}
	n := copy(b, c.rest.data)
	c.rest.data = c.rest.data[n:]
	if len(c.rest.data) > 0 {
		return n, nil
	}
	if c.rest.err == nil {
		c.next <- struct{}{}
	}
	return n, c.rest.err
}

// start starts the pump, unless it runs or the handler has ended.
func (c *clientBody) start() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil && !c.stopped {
		c.done = make(chan struct{})
		go c.pump(c.done)
	}
	return !c.stopped
}

// pump reads the body until its end, or until the handler has ended. It closes done once
// it reads no more, and returns its buffer once the handler has ended and nothing reads
// that either.
func (c *clientBody) pump(done chan<- struct{}) {
	buf := make([]byte, firstPiece)
	for n, more := c.pass(buf); more; n, more = c.pass(buf) {
		if n == firstPiece && len(buf) == firstPiece {
			buf = c.buffers.Get()
		}
	}
	close(done)
	if len(buf) == firstPiece {
		return
	}
	<-c.stop
	c.reading.Lock()
	c.rest = piece{}
	c.reading.Unlock()
	c.buffers.Put(buf)
}

// pass reads a piece and waits until it was used. It returns its length, and whether there
// may be more.
func (c *clientBody) pass(buf []byte) (n int, more bool) {
	n, err := c.Read(buf)
	select {
	case c.pieces <- piece{buf[:n], err}:
	case <-c.stop:
	}
	if err != nil {
		return n, false
	}
	select {
	case <-c.next:
		return n, true
	case <-c.stop:
		return n, false
	}
}

// end waits for the pump, and discards the rest of the body. The handler calls it
// last.
func (c *clientBody) end(w http.ResponseWriter) {
	c.mu.Lock()
	c.stopped = true
	done := c.done
	c.mu.Unlock()
	close(c.stop)
	if !c.ended.Load() {
		problem.Discard(w, &afterPump{c, done})
	}
}

// afterPump reads the rest of a body once the pump has ended.
type afterPump struct {
	body *clientBody
	done <-chan struct{} // nil: it never ran
}

// Read implements io.Reader.
func (a *afterPump) Read(b []byte) (int, error) {
	if a.done != nil {
		<-a.done
	}
	return a.body.Read(b)
}
