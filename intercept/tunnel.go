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

// relayBuffer is the buffer size for one direction of a tunnel, in bytes.
const relayBuffer = 8 << 10

// tunnel is a client's connection after CONNECT. It counts the bytes in both directions.
type tunnel struct {
	net.Conn
	proxy  *Proxy
	report Tunnel
	began  time.Time
	// authorized reports whether CONNECT's credentials are still accepted.
	authorized  func(context.Context) bool
	credentials credentials
	// early has the bytes that the client sent right after CONNECT; nil once they are read.
	early io.Reader
	// other is the connection to the other host; nil in a terminated tunnel.
	other net.Conn
	// serving reports whether a request inside the tunnel is in flight.
	serving atomic.Bool
	// open reports whether Conn and other are set. secure reports whether the TLS handshake
	// of a terminated tunnel is complete.
	open, secure atomic.Bool
	// wasCut reports whether a shutdown ended the tunnel.
	wasCut   atomic.Bool
	in, out  atomic.Int64
	lastByte atomic.Int64 // in Unix nanoseconds
	finished sync.Once
	// failure is the first error of a tunnel to another host. Read it only after both
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

// Write implements net.Conn. If the client does not read in time, the write fails.
func (t *tunnel) Write(b []byte) (int, error) {
	if err := t.limitWrite(time.Now()); err != nil {
		return 0, err
	}
	n, err := t.Conn.Write(b)
	t.count(&t.out, n)
	if err != nil && t.report.Intercepted {
		_ = t.Conn.Close() // otherwise, sending TLS close_notify would wait for another timeout
	}
	return n, err
}

// limitWrite sets the deadline for a write to the client that begins now.
func (t *tunnel) limitWrite(now time.Time) error {
	if !t.report.Intercepted {
		return t.SetWriteDeadline(now.Add(t.proxy.o.IdleTimeout))
	}
	timeout := t.proxy.o.WriteTimeout
	err := t.SetWriteDeadline(now.Add(timeout))
	if t.proxy.stopping.Err() != nil { // checked last, so as not to undo Shutdown's deadline
		err = t.SetWriteDeadline(now.Add(min(timeout, drainWriteTimeout)))
	}
	return err
}

// CloseWrite closes the sending half of the connection.
func (t *tunnel) CloseWrite() error { return closeWrite(t.Conn) }

// Close implements net.Conn. [http.Server] calls it at the end of a terminated tunnel.
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

// quiet returns the time since the last byte in either direction.
func (t *tunnel) quiet() time.Duration { return time.Since(time.Unix(0, t.lastByte.Load())) }

// cut ends the tunnel because of a shutdown. A tunnel that is still being opened ends as soon
// as it is open.
func (t *tunnel) cut() {
	t.wasCut.Store(true)
	if t.open.Load() {
		t.closeBoth()
	}
}

// setOpen marks the tunnel as open, after its connections are set.
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
	_ = t.Close() // nothing is left to send
}

// finish unregisters the tunnel and reports how it ended. Only the first call counts.
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

// relay copies in both directions until both have ended or one fails.
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
	t.finish(event.InterceptTunneled, t.failure) // a failure, such as a reset, also ends a tunnel
}

// copy copies one direction up to its end, and then closes the sending half of to. If copying
// fails, it also ends the other direction.
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
		case closeWrite(to) != nil: // the peer is gone, or cannot be half-closed
			t.closeBoth()
		}
		return
	}
}

// write writes b, with the idle timeout as the deadline.
func (t *tunnel) write(to net.Conn, b []byte) error {
	if err := to.SetWriteDeadline(time.Now().Add(t.proxy.o.IdleTimeout)); err != nil {
		return err
	}
	_, err := to.Write(b)
	return err
}

// readActive reads from one side. It fails with errIdle if neither direction has carried a byte
// for the idle timeout.
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

// handover is a listener that accepts the connections given to put.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put passes a connection to Accept. It returns an error if ctx ends or the listener is closed
// first.
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

// Addr implements net.Listener. It returns an empty address; the connections have real ones.
func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }
