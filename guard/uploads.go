package guard

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/problem"
)

// How long a client must have sent nothing before its slot can be given to another
// request: silentAfter if no byte of the body has come, else stalledAfter.
const (
	silentAfter  = 100 * time.Millisecond
	stalledAfter = 2 * time.Second
)

// uploads are the in-flight requests with a body. A client that sends the beginning of
// many and then nothing would otherwise take every slot. The zero value has none.
type uploads struct {
	mu     sync.Mutex // guards uploads; not held during I/O
	bodies map[*upload]struct{}
}

// upload is a request body that knows how long its client has sent nothing.
type upload struct {
	io.ReadCloser
	response *http.ResponseController
	// readStarted is when the Read under way began, in Unix nanoseconds; 0: none is.
	readStarted atomic.Int64
	started     atomic.Bool
	// displaced is the response to the client once its slot was given to another request.
	displaced atomic.Pointer[problem.Problem]
	client    *client // guarded by uploads.mu; nil: not known yet
}

// add returns r with a body that can be displaced, until done is called.
func (u *uploads) add(w http.ResponseWriter, r *http.Request) (_ *http.Request, done func()) {
	if r.ContentLength == 0 {
		return r, func() {}
	}
	body := &upload{ReadCloser: r.Body, response: http.NewResponseController(w)}
	r = r.WithContext(r.Context()) // net/http keeps its own request's body
	r.Body = body
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bodies == nil {
		u.bodies = make(map[*upload]struct{})
	}
	u.bodies[body] = struct{}{}
	return r, func() { u.remove(body) }
}

func (u *uploads) remove(body *upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.bodies, body)
}

// setClient notes whose request has the body.
func (u *uploads) setClient(body io.Reader, c *client) {
	if b, ok := body.(*upload); ok {
		u.mu.Lock()
		defer u.mu.Unlock()
		b.client = c
	}
}

// displace ends the request whose client has sent nothing for the longest time, among
// those for whose client is returns true; nil stands for all. It returns the request's
// body, or nil if there is none. full is the response to its client.
func (u *uploads) displace(is func(*client) bool, full *problem.Problem) *upload {
	var longest *upload
	now := time.Now()
	since := now.UnixNano()
	u.mu.Lock()
	for body := range u.bodies {
		if is != nil && (body.client == nil || !is(body.client)) {
			continue
		}
		if at := body.readStarted.Load(); at != 0 && at < since && now.Sub(time.Unix(0, at)) >= body.maxSilence() {
			longest, since = body, at
		}
	}
	delete(u.bodies, longest)
	u.mu.Unlock()
	if longest == nil {
		return nil
	}
	longest.displaced.Store(full)
	// Its Read ends with a timeout. Every writer of net/http has deadlines.
	_ = longest.response.SetReadDeadline(time.Now().Add(time.Millisecond))
	return longest
}

func (b *upload) maxSilence() time.Duration {
	if b.started.Load() {
		return stalledAfter
	}
	return silentAfter
}

// Read implements io.Reader.
func (b *upload) Read(p []byte) (int, error) {
	b.readStarted.Store(time.Now().UnixNano())
	n, err := b.ReadCloser.Read(p)
	b.readStarted.Store(0)
	if n > 0 {
		b.started.Store(true)
	}
	if full := b.displaced.Load(); err != nil && full != nil {
		return n, full.Because(err)
	}
	return n, err
}
