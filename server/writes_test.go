package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bytes"

	"mimecast-proxy/internal/peer"
)

// serveTLS serves with a certificate for 127.0.0.1, and returns a client connection that
// negotiated HTTP/2.
func serveTLS(t *testing.T, limits Limits, h http.Handler) net.Conn {
	t.Helper()
	certificate, roots := peer.Certificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Handler: h, Context: context.Background(), Limits: limits, TLS: &tls.Config{Certificates: []tls.Certificate{*certificate}}})
	served := make(chan error, 1)
	go func() { served <- s.ServeTLS(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return dialHTTP2(t, l.Addr().String(), roots)
}

func dialHTTP2(t *testing.T, address string, roots *x509.CertPool) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it may be closed already
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		t.Fatal("no HTTP/2")
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A client that grants no window for a stream still reads the connection, so no write to
// the connection times out.
func TestHTTP2ClientThatGrantsNoWindowIsCutAfterTheWriteTimeout(t *testing.T) {
	failed := make(chan error, 1)
	conn := serveTLS(t, Limits{WriteTimeout: 200 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := w.Write(chunk); err != nil {
				failed <- err
				return
			}
		}
	}))
	ask(t, conn)
	reading := make(chan struct{})
	go func() { defer close(reading); _, _ = io.Copy(io.Discard, conn) }() // reads everything and sends no WINDOW_UPDATE
	select {
	case <-failed:
	case <-time.After(patience):
		t.Fatal("the handler is blocked for good")
	}
	_ = conn.Close()
	<-reading
}

// ask sends a request as stream 1 and grants no window for its response.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", "/"}} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
}

// A response may pause for longer than the write timeout.
func TestHTTP2ResponseMayPauseForLongerThanTheWriteTimeout(t *testing.T) {
	const timeout = 50 * time.Millisecond
	conn := serveTLS(t, Limits{WriteTimeout: timeout}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			io.WriteString(w, "part ")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			select { // longer than the timeout, unless the stream ended
			case <-time.After(4 * timeout):
			case <-r.Context().Done():
				t.Error("the stream was ended in the pause")
				return
			}
		}
		io.WriteString(w, "end")
	}))
	ask(t, conn)
	f := http2.NewFramer(conn, conn)
	text := ""
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			text += string(frame.Data())
			if frame.StreamEnded() {
				if text != "part part part end" {
					t.Errorf("%q", text)
				}
				return
			}
		case *http2.RSTStreamFrame:
			t.Fatalf("after %q: %v", text, frame.ErrCode)
		}
	}
}
