package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// unknownWindow is HTTP/2's receive window for a stream if no memory limit
	// is known, in bytes.
	unknownWindow = 1 << 20
	// minWindow and maxWindow bound it, minReceivers the streams that share an
	// eighth of the memory.
	minWindow, maxWindow = 64 << 10, 4 << 20
	minReceivers         = 128
	// maxFrame bounds HTTP/2's frames, in bytes: larger ones cost less CPU.
	maxFrame = 256 << 10
	// stalledAfter is how long a client may take nothing of its response while
	// another request waits for a place.
	stalledAfter = 2 * time.Second
	// stalledCheck is how often a request that waits looks for such a client.
	stalledCheck = 250 * time.Millisecond
)

// windows are the bounds of what HTTP/2 may hold of responses that their clients
// have not taken yet.
type windows struct {
	perStream, frame int // bytes
	streams          int // at once; 0 means no bound
}

// windowsFor shares an eighth of the memory among the responses.
func windowsFor(memoryLimit int64) windows {
	if memoryLimit <= 0 {
		return windows{unknownWindow, maxFrame, 0}
	}
	share := memoryLimit / 8
	window := min(max(share/minReceivers, minWindow), maxWindow)
	return windows{int(window), int(min(window, maxFrame)), int(max(share/window, minReceivers))}
}

// errStalled is why a response was cut: others waited for its place.
var errStalled = errors.New("the client did not read the response while other requests waited")

// receivers bounds how many responses are received at once, since the upstream
// fills a window for each, whether its client reads or not.
type receivers struct {
	free chan struct{} // nil if there is no bound

	mu   sync.Mutex
	held map[*receiver]struct{} // responses that are being received
}

func newReceivers(most int) *receivers {
	r := &receivers{held: map[*receiver]struct{}{}}
	if most > 0 {
		r.free = make(chan struct{}, most)
		for range most {
			r.free <- struct{}{}
		}
	}
	return r
}

// acquire waits for a place and returns it. If no place is free, it cuts the response
// whose client has stalled for longest.
func (r *receivers) acquire(ctx context.Context) (*receiver, error) {
	if r.free == nil {
		return nil, nil
	}
	select {
	case <-r.free:
		return &receiver{of: r}, nil
	default:
	}
	check := time.NewTicker(stalledCheck)
	defer check.Stop()
	for {
		r.cutStalled(time.Now())
		select {
		case <-r.free:
			return &receiver{of: r}, nil
		case <-check.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// cutStalled ends the response whose client has taken nothing for longest, if it
// is long enough.
func (r *receivers) cutStalled(now time.Time) {
	var longest *receiver
	since := now.Add(-stalledAfter).UnixNano()
	r.mu.Lock()
	for p := range r.held {
		if at := p.idleSince.Load(); at != 0 && at <= since {
			longest, since = p, at
		}
	}
	if longest != nil {
		delete(r.held, longest)
	}
	r.mu.Unlock()
	if longest != nil {
		longest.cut.Store(true)
		_ = longest.Close()
	}
}

// receiver is a place for a response, and then that response's body. A nil
// receiver stands for a place without a bound.
type receiver struct {
	of       *receivers
	body     io.ReadCloser
	released sync.Once
	// idleSince is when the client got the last bytes, as Unix time in nanoseconds; 0
	// while the proxy waits for the upstream.
	idleSince atomic.Int64
	cut       atomic.Bool
}

// receive returns res with a body that gives the place back at its end.
func (p *receiver) receive(res *http.Response) *http.Response {
	if p == nil {
		return res
	}
	if res.ProtoMajor < 2 { // no window is filled
		p.release()
		return res
	}
	p.body = res.Body
	p.idleSince.Store(time.Now().UnixNano())
	p.of.mu.Lock()
	p.of.held[p] = struct{}{}
	p.of.mu.Unlock()
	res.Body = p
	return res
}

// release gives the place back.
func (p *receiver) release() {
	if p == nil {
		return
	}
	p.released.Do(func() {
		p.of.mu.Lock()
		delete(p.of.held, p)
		p.of.mu.Unlock()
		p.of.free <- struct{}{}
	})
}

// Read implements io.Reader.
func (p *receiver) Read(b []byte) (int, error) {
	p.idleSince.Store(0)
	n, err := p.body.Read(b)
	p.idleSince.Store(time.Now().UnixNano())
	if p.cut.Load() {
		return 0, errStalled
	}
	if err != nil {
		p.release()
	}
	return n, err
}

// Close implements io.Closer.
func (p *receiver) Close() error {
	defer p.release()
	return p.body.Close()
}
