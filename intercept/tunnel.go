package intercept

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mimecast-proxy/event"
)

// relayBuffer is what one direction of a tunnel holds.
const relayBuffer = 8 << 10

// tunnel is a client's connection from its CONNECT on, and counts what passes.
type tunnel struct {
	net.Conn
	proxy  *Proxy
	report Tunnel
	began  time.Time
	// authorized reports whether CONNECT's credentials are still accepted.
	authorized  func(context.Context) bool
	credentials credentials
	// early is what the client sent right after CONNECT.
	early io.Reader
	// other is the connection to the other host; nil in a terminated tunnel.
	other net.Conn
	// serving reports whether a request inside is under way.
	serving atomic.Bool
	// open reports whether Conn and other are set, and secure whether the handshake of a
	// terminated tunnel is done.
	open, secure atomic.Bool
	// wasCut reports whether the proxy ended it for a shutdown.
	wasCut   atomic.Bool
	in, out  atomic.Int64
	lastByte atomic.Int64 // in Unix nanoseconds
	finished sync.Once
	// failure is the first error of a tunnel to another host. It may be read once both
	// directions have ended.
	failure error
	failed  sync.Once
}

// Read implements net.Conn.
func (t *tunnel) Read(b []byte) (n int, err error) {
	if t.early != nil {
		if n, err = t.early.Read(b); err != nil {
			t.early = nil
		}
	}
	if n == 0 {
		n, err = t.Conn.Read(b)
	}
	t.count(&t.in, n)
	return n, err
}

// Write implements net.Conn. A client that does not read loses its connection.
func (t *tunnel) Write(b []byte) (int, error) {
	if err := t.limitWrite(time.Now()); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(b)
	t.count(&t.out, n)
	if err != nil && t.report.Intercepted {
		_ = t.Conn.Close() // else TLS would wait as long again to say that it closes
	}
	return n, err
}

// limitWrite sets until when the client may take to accept a write that begins now.
func (t *tunnel) limitWrite(now time.Time) error {
	if !t.report.Intercepted {
		return t.SetWriteDeadline(now.Add(t.proxy.o.IdleTimeout))
	}
	timeout := t.proxy.o.WriteTimeout
	err := t.SetWriteDeadline(now.Add(timeout))
	if t.proxy.stopping.Err() != nil { // asked last: else Shutdown's deadline could be undone
		err = t.SetWriteDeadline(now.Add(min(timeout, drainWriteTimeout)))
	}
	return err
}

// CloseWrite closes the sending half.
func (t *tunnel) CloseWrite() error { return closeWrite(t.Conn) }

// Close implements net.Conn. It ends a terminated tunnel, which [http.Server] closes.
func (t *tunnel) Close() error {
	err := t.Conn.Close()
	if t.secure.Load() {
		t.finish(event.InterceptTerminated, nil)
	}
	return err
}

func (t *tunnel) count(of *atomic.Int64, n int) {
	if n > 0 {
		of.Add(int64(n))
		t.lastByte.Store(time.Now().UnixNano())
	}
}

// quiet returns for how long no byte has passed.
func (t *tunnel) quiet() time.Duration { return time.Since(time.Unix(0, t.lastByte.Load())) }

// cut ends the tunnel because of a shutdown. One that is being opened ends once it is.
func (t *tunnel) cut() {
	t.wasCut.Store(true)
	if t.open.Load() {
		t.closeBoth()
	}
}

// setOpen marks a tunnel whose connections are set.
func (t *tunnel) setOpen() {
	t.open.Store(true)
	if t.wasCut.Load() {
		t.closeBoth()
	}
}

func (t *tunnel) closeBoth() {
	if t.other != nil {
		_ = t.other.Close()
	}
	_ = t.Close() // the peers see the end, and nothing is left to send
}

// finish gives back the tunnel's place and reports how it ended, once.
func (t *tunnel) finish(outcome event.InterceptOutcome, err error) {
	t.finished.Do(func() {
		if t.wasCut.Load() {
			outcome, err = event.InterceptShutdown, nil
		}
		t.proxy.remove(t)
		t.report.In, t.report.Out = t.in.Load(), t.out.Load()
		t.proxy.done(t.report, outcome, err, t.began)
	})
}

func (p *Proxy) done(report Tunnel, outcome event.InterceptOutcome, err error, began time.Time) {
	if p.o.Trace.TunnelDone == nil {
		return
	}
	report.Outcome, report.Err, report.Duration = outcome, err, time.Since(began)
	p.o.Trace.TunnelDone(report)
}

var errIdle = errors.New("no byte came within the idle timeout")

// relay copies both ways until both sides have ended or one fails.
func (t *tunnel) relay() {
	var sending sync.WaitGroup
	sending.Go(func() { t.copy(t.other, t) })
	t.copy(t, t.other)
	sending.Wait()
	t.closeBoth()
	if errors.Is(t.failure, errIdle) {
		t.finish(event.InterceptIdle, nil)
		return
	}
	t.finish(event.InterceptTunneled, t.failure) // a reset is an end, too
}

// copy copies one direction to its end, and passes the end on. If it fails, it ends the
// other direction too.
func (t *tunnel) copy(to, from net.Conn) {
	buf := make([]byte, relayBuffer)
	for {
		n, err := t.readActive(from, buf)
		if n > 0 {
			if failed := t.write(to, buf[:n]); failed != nil {
				err = failed
			}
		}
		switch {
		case err == nil:
			continue
		case !errors.Is(err, io.EOF):
			t.failed.Do(func() { t.failure = err })
			t.closeBoth()
		case closeWrite(to) != nil: // its peer is gone, or would never see the end
			t.closeBoth()
		}
		return
	}
}

// write gives the peer the idle timeout to accept b.
func (t *tunnel) write(to net.Conn, b []byte) error {
	if err := to.SetWriteDeadline(time.Now().Add(t.proxy.o.IdleTimeout)); err != nil {
		return err
	}
	_, err := to.Write(b)
	return err
}

// readActive reads, and fails once neither direction has carried a byte for the idle
// timeout.
func (t *tunnel) readActive(from net.Conn, buf []byte) (int, error) {
	for {
		left := t.proxy.o.IdleTimeout - t.quiet()
		if left <= 0 {
			return 0, errIdle
		}
		if err := from.SetReadDeadline(time.Now().Add(left)); err != nil {
			return 0, err
		}
		n, err := from.Read(buf)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// handover is a listener whose connections are those that were put into it.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put hands a connection to Accept, unless ctx ends or the listener is closed.
func (h *handover) put(ctx context.Context, c net.Conn) error {
	select {
	case h.conns <- c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.closed:
		return http.ErrServerClosed
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener. The connections have addresses of their own.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }
