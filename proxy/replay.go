package proxy

import (
	"errors"
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
)

// Budget bounds what all kept bodies take together, in bytes.
type Budget struct {
	left atomic.Int64
	// changed is told of each change, if set.
	changed func(delta int64)
}

// NewBudget returns a budget of so many bytes. changed may be nil.
func NewBudget(bytes int64, changed func(delta int64)) *Budget {
	b := &Budget{changed: changed}
	b.left.Store(bytes)
	return b
}

// take reserves n bytes, or none where so many are not left.
func (b *Budget) take(n int64) bool {
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		return false
	}
	b.tell(n)
	return true
}

func (b *Budget) give(n int64) {
	b.left.Add(n)
	b.tell(-n)
}

func (b *Budget) tell(delta int64) {
	if b.changed != nil && delta != 0 {
		b.changed(delta)
	}
}

// Blocks are as large as what is expected in them: the first of an unknown
// body is small, since most bodies are.
const (
	firstBlock = 4 << 10
	nextBlock  = 64 << 10
)

// errConsumed is why a body cannot be sent again: it went by unkept.
var errConsumed = errors.New("the request body is no longer there")

// ClientBodyError says that the client's body could not be read: the fault is
// the client's, or that of its connection, and not the upstream's.
type ClientBodyError struct{ Err error }

// Error names the cause.
func (e *ClientBodyError) Error() string { return "reading the request body: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ClientBodyError) Unwrap() error { return e.Err }

// payload is a request's body on its way: the part that is kept, and the rest
// that is still with the client. While no byte of the rest was taken, all of
// it can be sent again.
type payload struct {
	budget *Budget
	blocks [][]byte
	size   int64 // of what is kept
	taken  int64 // from the budget
	users  atomic.Int64

	rest io.ReadCloser // nil where all of it is kept

	mu      sync.Mutex
	current *stream // guarded by mu: the attempt that may read rest
	err     error   // guarded by mu: what reading rest ended with, but io.EOF
}

// keep reads the body of r as far as limit and budget allow. Past them, what was
// read is kept as the head of a stream.
func keep(r *http.Request, limit int64, budget *Budget) (*payload, error) {
	p := &payload{budget: budget, rest: r.Body}
	p.users.Store(1)
	limit = min(limit, math.MaxInt64-1)
	if r.Body == nil || r.Body == http.NoBody {
		p.rest = nil
		return p, nil
	}
	if r.ContentLength > limit {
		return p, nil
	}
	for p.size <= limit {
		// One byte over the limit tells a body at the limit from a larger one.
		room := min(p.nextSize(r.ContentLength), limit+1-p.size)
		if !budget.take(room) {
			return p, nil
		}
		p.taken += room
		n, err := fill(r.Body, p.add(room))
		p.trim(n)
		switch {
		case errors.Is(err, io.EOF), err == nil && p.size == r.ContentLength:
			p.rest = nil
			return p, nil
		case err != nil:
			p.release()
			return nil, &ClientBodyError{err}
		}
	}
	return p, nil
}

// nextSize returns how large a block to read next, of a body of so many bytes
// in all; -1 where nobody knows.
func (p *payload) nextSize(length int64) int64 {
	switch {
	case length >= 0:
		return min(length-p.size, nextBlock)
	case p.size == 0:
		return firstBlock
	default:
		return nextBlock
	}
}

func (p *payload) add(room int64) []byte {
	p.blocks = append(p.blocks, make([]byte, room))
	return p.blocks[len(p.blocks)-1]
}

// trim cuts the last block down to the n bytes that were read into it.
func (p *payload) trim(n int) {
	last := &p.blocks[len(p.blocks)-1]
	*last = (*last)[:n]
	p.size += int64(n)
}

// fill reads until b is full. Unlike io.ReadFull it leaves io.EOF, which is the
// body's end, apart from io.ErrUnexpectedEOF, which is a body cut short.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// whole reports whether all of the body is kept.
func (p *payload) whole() bool { return p.rest == nil }

// empty reports whether there is no body at all.
func (p *payload) empty() bool { return p.whole() && p.size == 0 }

// release is called by whoever has no further use for the body: once when no
// more attempts will be made, and once for each attempt when its stream is
// closed, which may be later. The last one gives back what the body took of the
// budget.
func (p *payload) release() {
	if p.users.Add(-1) == 0 {
		p.budget.give(p.taken)
	}
}

// open returns the body for one attempt, from its first byte, or errConsumed.
// An attempt that came before gets no more of it.
func (p *payload) open() (io.ReadCloser, error) {
	s := &stream{head: p.blocks, payload: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && p.current.touched {
		return nil, errConsumed
	}
	p.end()
	p.current = s
	p.users.Add(1)
	return s, nil
}

// abandon ends an attempt that failed. net/http does not close every body that
// it got by GetBody, such as one for which it then found no connection.
func (p *payload) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

// end closes the stream of the last attempt, with mu held.
func (p *payload) end() {
	if s := p.current; s != nil && !s.closed {
		s.closed = true
		p.release()
	}
}

// clientErr returns what reading from the client ended with, if it was a
// failure. The upstream transport gives such an error in its own words, from
// which nobody could tell whose fault it was.
func (p *payload) clientErr() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// stream is the body as one attempt reads it: what is kept, then the rest.
type stream struct {
	head    [][]byte
	offset  int // in head[0]
	payload *payload
	touched bool // guarded by payload.mu: took from the rest
	closed  bool // guarded by payload.mu
}

func (s *stream) Read(b []byte) (int, error) {
	for len(s.head) > 0 {
		n := copy(b, s.head[0][s.offset:])
		if s.offset += n; s.offset == len(s.head[0]) {
			s.head, s.offset = s.head[1:], 0
		}
		if n > 0 || len(b) == 0 {
			return n, nil
		}
	}
	if s.payload.whole() {
		return 0, io.EOF
	}
	return s.payload.read(s, b)
}

// read reads from the rest, if s is the attempt that may.
func (p *payload) read(s *stream, b []byte) (int, error) {
	p.mu.Lock()
	if p.current != s || s.closed { // net/http reads on where it gave a body up
		p.mu.Unlock()
		return 0, errConsumed
	}
	s.touched = true
	p.mu.Unlock()
	n, err := p.rest.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		p.mu.Lock()
		p.err = &ClientBodyError{err}
		p.mu.Unlock()
	}
	return n, err
}

// Close leaves the client's body open: it belongs to the server that took the
// request, and another attempt may need it.
func (s *stream) Close() error {
	s.payload.mu.Lock()
	defer s.payload.mu.Unlock()
	if s.payload.current == s {
		s.payload.end() // any other has ended
	}
	return nil
}
