package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"sync"
	"sync/atomic"

	"mimecast-proxy/account"
)

// Budget bounds what all kept bodies take together, in bytes.
type Budget struct {
	left atomic.Int64
	// changed gets each change; it may be nil.
	changed func(delta int64)
}

// NewBudget returns a budget of so many bytes. changed may be nil.
func NewBudget(bytes int64, changed func(delta int64)) *Budget {
	b := &Budget{changed: changed}
	b.left.Store(bytes)
	return b
}

// take reserves n bytes for a request of an account, or none if so many are not left, or
// not in the account's share.
func (b *Budget) take(a *account.Account, n int64) bool {
	if !a.Keep(n) {
		return false
	}
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		a.Drop(n)
		return false
	}
	b.tell(n)
	return true
}

func (b *Budget) give(a *account.Account, n int64) {
	a.Drop(n)
	b.left.Add(n)
	b.tell(-n)
}

func (b *Budget) tell(delta int64) {
	if b.changed != nil && delta != 0 {
		b.changed(delta)
	}
}

// Replay returns the layer that makes request bodies repeatable: it keeps a body of
// up to limit bytes until the response begins, as far as the budget allows, and sets
// Request.GetBody, by which the layers below resend. A larger body streams; it can be
// sent again as long as nothing of it was read. If the client's body cannot be read,
// the error is a [*ClientBodyError].
func Replay(limit int64, budget *Budget) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &replay{next, limit, budget} }
}

type replay struct {
	next   http.RoundTripper
	limit  int64
	budget *Budget
}

// RoundTrip implements http.RoundTripper. It leaves the body of req open, which may
// still be read while the response arrives.
func (t *replay) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if _, err := account.Of(ctx).Tokens.Token(ctx); err != nil { // then the body need not be read
		return nil, err
	}
	var res *http.Response
	var err error
	if req.Body == nil || req.Body == http.NoBody {
		res, err = t.next.RoundTrip(req)
	} else {
		res, err = t.sendKept(req)
	}
	if err != nil {
		return nil, err
	}
	res.Request = req // another would hold the kept body as long as the response
	return res, nil
}

// sendKept keeps the body while the layers below send it.
func (t *replay) sendKept(req *http.Request) (*http.Response, error) {
	body, err := bufferBody(req, t.limit, t.budget)
	if err != nil {
		return nil, err
	}
	defer body.release()
	out, err := body.request(req)
	if err != nil {
		return nil, err
	}
	res, err := t.next.RoundTrip(out)
	if err != nil {
		body.closeAttempt()
		if clientErr := body.clientErr(); clientErr != nil {
			return nil, clientErr
		}
	}
	return res, err
}

// request returns req with p as its body. GetBody is also what net/http resends by
// if it knows that the upstream took nothing: a connection that had gone stale, an
// HTTP/2 stream that got REFUSED_STREAM.
func (p *replayBody) request(req *http.Request) (*http.Request, error) {
	out := *req
	switch {
	case p.empty():
		out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, 0, nil
		return &out, nil
	case p.whole():
		out.ContentLength = p.size
		out.TransferEncoding = nil
	default:
		// A 401 can then arrive before the body is on its way and gone.
		out.Header = maps.Clone(req.Header)
		out.Header["Expect"] = []string{"100-continue"}
	}
	out.GetBody = p.open
	body, err := p.open()
	out.Body = body
	return &out, err
}

// Blocks grow with what has come, so that a client that announces a body and
// sends nothing takes next to no memory.
const (
	firstBlock = 1 << 10
	maxBlock   = 64 << 10
)

// errBodyConsumed is why a body cannot be sent again: it was streamed and not kept.
var errBodyConsumed = errors.New("the request body is no longer there")

// ClientBodyError says that the client's body could not be read: the fault is
// the client's, or that of its connection, and not the upstream's.
type ClientBodyError struct{ Err error }

// Error names the cause.
func (e *ClientBodyError) Error() string { return "reading the request body: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ClientBodyError) Unwrap() error { return e.Err }

// replayBody is a request's body on its way: the part that is kept, and the rest
// that is still with the client. While no byte of the rest was taken, all of
// it can be sent again.
type replayBody struct {
	budget  *Budget
	account *account.Account
	blocks  [][]byte
	size    int64 // of what is kept
	taken   int64 // from the budget
	users   atomic.Int64

	rest io.ReadCloser // nil where all of it is kept

	mu      sync.Mutex
	current *stream     // guarded by mu: the attempt that may read rest
	unwatch func() bool // guarded by mu: ends watching its connection; nil if none is watched
	err     error       // guarded by mu: what reading rest ended with, but io.EOF
}

// bufferBody reads the body of r as far as limit and budget allow. Past them, what was
// read is kept as the head of a stream.
func bufferBody(r *http.Request, limit int64, budget *Budget) (*replayBody, error) {
	p := &replayBody{budget: budget, account: account.Of(r.Context()), rest: r.Body}
	p.users.Store(1)
	limit = min(limit, math.MaxInt64-1)
	if r.ContentLength > limit {
		return p, nil
	}
	for p.size <= limit {
		// One byte over the limit separates a body at the limit from a larger one.
		room := min(p.nextSize(r.ContentLength), limit+1-p.size)
		if !budget.take(p.account, room) {
			return p, nil
		}
		p.taken += room
		n, err := readFull(r.Body, p.add(room))
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

// nextSize returns the size of the next block to read, at most as many bytes as have
// come. length is that of the whole body; -1 if it is unknown.
func (p *replayBody) nextSize(length int64) int64 {
	size := min(max(p.size, firstBlock), maxBlock)
	if length >= 0 {
		size = min(size, length-p.size)
	}
	return size
}

func (p *replayBody) add(room int64) []byte {
	p.blocks = append(p.blocks, make([]byte, room))
	return p.blocks[len(p.blocks)-1]
}

// trim cuts the last block down to the n bytes that were read into it.
func (p *replayBody) trim(n int) {
	last := &p.blocks[len(p.blocks)-1]
	*last = (*last)[:n]
	p.size += int64(n)
}

// readFull reads until b is full. Unlike io.ReadFull it leaves io.EOF, which is the
// body's end, apart from io.ErrUnexpectedEOF, which is a body cut short.
func readFull(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// whole reports whether all of the body is kept.
func (p *replayBody) whole() bool { return p.rest == nil }

// empty reports whether there is no body at all.
func (p *replayBody) empty() bool { return p.whole() && p.size == 0 }

// release is called once when no more attempts will be made, and once for each attempt
// when its stream is closed, which may be later. The last call returns the body's part
// of the budget.
func (p *replayBody) release() {
	if p.users.Add(-1) == 0 {
		p.budget.give(p.account, p.taken)
	}
}

// open returns the body for one attempt, from its first byte, or errBodyConsumed.
// An earlier attempt gets no more of it.
func (p *replayBody) open() (io.ReadCloser, error) {
	s := &stream{head: p.blocks, body: p, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil && p.current.touched {
		return nil, errBodyConsumed
	}
	p.end()
	p.current = s
	p.users.Add(1)
	return s, nil
}

// closeAttempt ends an attempt that failed. net/http does not close every body that
// it got by GetBody, such as one for which it then found no connection.
func (p *replayBody) closeAttempt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

// end closes the stream of the last attempt, with mu held.
func (p *replayBody) end() {
	if s := p.current; s != nil && !s.closed {
		s.closed = true
		close(s.done)
		p.release()
	}
	if p.unwatch != nil {
		p.unwatch()
		p.unwatch = nil
	}
}

// EndWith ends the attempt that is under way together with its connection. Over
// HTTP/1.1 net/http waits for the Read of a body before it reports that the
// connection has ended.
func (s *stream) EndWith(connection context.Context) {
	p := s.body
	if p.whole() {
		return // reading it never waits
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unwatch != nil {
		p.unwatch()
	}
	if current := p.current; current != nil && !current.closed {
		p.unwatch = context.AfterFunc(connection, func() { _ = current.Close() })
	}
}

// clientErr returns the error of reading from the client, if any. The upstream
// transport wraps it so that the client's fault is no longer visible.
func (p *replayBody) clientErr() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// stream is the body as one attempt reads it: what is kept, then the rest.
type stream struct {
	head    [][]byte
	offset  int // in head[0]
	body    *replayBody
	done    chan struct{} // closed with it
	touched bool          // guarded by body.mu: took from the rest
	closed  bool          // guarded by body.mu
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
	if s.body.whole() {
		return 0, io.EOF
	}
	return s.body.read(s, b)
}

// read reads from the rest, if s is the attempt that may.
func (p *replayBody) read(s *stream, b []byte) (int, error) {
	p.mu.Lock()
	if p.current != s || s.closed { // net/http reads on after it gave a body up
		p.mu.Unlock()
		return 0, errBodyConsumed
	}
	s.touched = true
	p.mu.Unlock()
	var n int
	var err error
	if client, ok := p.rest.(*clientBody); ok {
		n, err = client.readUntil(s.done, b)
	} else {
		n, err = p.rest.Read(b)
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errBodyConsumed) {
		p.mu.Lock()
		p.err = &ClientBodyError{err}
		p.mu.Unlock()
	}
	return n, err
}

// Close leaves the client's body open: it belongs to the server that took the
// request, and another attempt may need it.
func (s *stream) Close() error {
	s.body.mu.Lock()
	defer s.body.mu.Unlock()
	if s.body.current == s {
		s.body.end() // any other has ended
	}
	return nil
}
