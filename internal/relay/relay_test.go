package relay_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a connection through a relay to an echo server.
func dial(t *testing.T) (*relay.Relay, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	r, err := relay.Start(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); r.Close(); l.Close(); <-served })
	return r, c.(*net.TCPConn)
}

func TestBytesAndHalfClosePass(t *testing.T) {
	_, c := dial(t)
	sent := bytes.Repeat([]byte("0123456789"), 20_000)
	go func() { _, _ = c.Write(sent); _ = c.CloseWrite() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFaultStrikesAtItsByte(t *testing.T) {
	for _, c := range []struct {
		do   relay.Action
		want error
	}{{relay.Reset, syscall.ECONNRESET}, {relay.Close, nil}} {
		r, conn := dial(t)
		r.Set(relay.Fault{Direction: relay.Up, After: 3, Do: c.do, Count: 1})
		// Read byte by byte, because a reset discards unread bytes.
		var got []byte
		var err error
		for i := 0; i < 10 && err == nil; i++ {
			if _, err = conn.Write([]byte{byte('0' + i)}); err == nil {
				b := make([]byte, 1)
				if _, err = io.ReadFull(conn, b); err == nil {
					got = append(got, b[0])
				}
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if string(got) != "012" || !errors.Is(err, c.want) || r.Hits() != 1 {
			t.Errorf("%s: %q, %v, %d struck", c.do, got, err, r.Hits())
		}
	}
}

func TestStalledConnectionStaysOpen(t *testing.T) {
	r, c := dial(t)
	r.Set(relay.Fault{Direction: relay.Down, Do: relay.Stall})
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for r.Hits() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) && !isTimeout(err) {
		t.Errorf("%v", err)
	}
}

func isTimeout(err error) bool { e, ok := errors.AsType[net.Error](err); return ok && e.Timeout() }
