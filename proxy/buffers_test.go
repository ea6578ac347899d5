package proxy

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"mimecast-proxy/account"
)

func TestFewBuffersAreLarge(t *testing.T) {
	t.Parallel()
	b := newBuffers()
	var lent [][]byte
	for i := range 2 * maxLarge {
		buf, want := b.Get(), smallBuffer
		if i < maxLarge {
			want = largeBuffer
		}
		if len(buf) != want {
			t.Errorf("buffer %d has %d bytes, want %d", i, len(buf), want)
		}
		lent = append(lent, buf)
	}
	for _, buf := range lent {
		b.Put(buf)
	}
	if buf := b.Get(); len(buf) != largeBuffer {
		t.Errorf("the next buffer has %d bytes", len(buf))
	}
}

// TestUploadKeepsItsBufferWhileItIsRead guards against an upload that reads the bytes of
// another.
func TestUploadKeepsItsBufferWhileItIsRead(t *testing.T) {
	t.Parallel()
	upload := func() (*clientBody, *buffers) {
		b := newBuffers()
		body := newClientBody(iotest.DataErrReader(bytes.NewReader(make([]byte, 2*firstPiece))), b)
		for _, n := range []int{firstPiece, 1} { // the second piece, the last, is in a buffer of b
			if _, err := body.readUntil(nil, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		return body, b
	}
	lent := func(b *buffers, want int) {
		t.Helper()
		if synctest.Wait(); len(b.lent) != want {
			t.Errorf("%d large buffers are lent, want %d", len(b.lent), want)
		}
	}
	t.Run("the last piece is read in parts", func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			body, b := upload()
			lent(b, 1)
			if n, err := body.readUntil(nil, make([]byte, largeBuffer)); n != firstPiece-1 || !errors.Is(err, io.EOF) {
				t.Errorf("%d, %v", n, err)
			}
			body.end(httptest.NewRecorder())
			lent(b, 0)
		})
	})
	t.Run("the handler ends during a read", func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			body, b := upload()
			body.reading.Lock()
			body.end(httptest.NewRecorder())
			for range 1000 { // synctest.Wait does not see who waits for a lock
				runtime.Gosched()
			}
			if len(b.lent) != 1 {
				t.Error("the buffer was returned")
			}
			body.reading.Unlock()
			lent(b, 0)
			if _, err := body.readUntil(nil, make([]byte, firstPiece)); !errors.Is(err, errBodyConsumed) {
				t.Errorf("%v", err)
			}
		})
	})
}

// brokenWriter is a ResponseWriter whose client reset its stream.
type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("stream closed") }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// After an error, net/http's HTTP/2 server may still read what it was given to write. The
// next response's bytes must not be there.
func TestBufferOfAFailedWriteIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	h := New(Options{ErrorLog: log.New(io.Discard, "", 0), Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("text")), Request: r}, nil
	})}).(*forwarder)
	for range 2 * maxLarge {
		r := httptest.NewRequestWithContext(account.NewContext(t.Context(), &account.Account{BaseURL: &url.URL{Scheme: "https", Host: "h"}}, ""), "GET", "/", nil)
		r.ProtoMajor, r.ProtoMinor = 2, 0
		func() {
			defer func() { _ = recover() }() // ReverseProxy's, if the request comes from a server
			h.ServeHTTP(brokenWriter{httptest.NewRecorder()}, r)
		}()
		if used := h.buffers.large.Get(); used != nil {
			t.Fatal("the buffer can be lent again")
		}
	}
	if n := len(h.buffers.lent); n != 0 {
		t.Errorf("%d large buffers are still lent", n)
	}
}
