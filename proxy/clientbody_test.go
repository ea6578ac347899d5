package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/problem"
	"mimecast-proxy/upstream"
)

// pausing starts an upload and never sends its rest.
func (r *rig) pausing(framing, begun string) (*bufio.Reader, net.Conn) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	// Much longer than the response needs, much shorter than the client pauses.
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n%s", framing, begun)
	return bufio.NewReader(conn), conn
}

// breakOff closes the connection, or resets the stream.
func breakOff(w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}

func TestAPausedClientGetsAnEarlyResponse(t *testing.T) {
	t.Parallel()
	framings := map[string]string{
		"Content-Length: 1000000\r\n":    strings.Repeat("x", 50_000),
		"Transfer-Encoding: chunked\r\n": "c350\r\n" + strings.Repeat("x", 50_000) + "\r\n",
	}
	for _, http1 := range []bool{true, false} {
		for framing, begun := range framings {
			for name, c := range map[string]struct {
				answer http.HandlerFunc
				status int
				code   string
			}{
				"413":               {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, 413, ""},
				"413 with a body":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413); io.WriteString(w, "too large") }, 413, ""},
				"200":               {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); io.WriteString(w, "enough") }, 200, ""},
				"broken off":        {breakOff, 502, "upstream_reset"},
				"broken off, later": {func(w http.ResponseWriter, r *http.Request) { time.Sleep(100 * time.Millisecond); breakOff(w, r) }, 502, "upstream_reset"},
			} {
				t.Run(fmt.Sprintf("HTTP/1 %v, %s%s", http1, framing, name), func(t *testing.T) {
					r := newRig(t, setup{limit: 1000, http1: http1}, func(w http.ResponseWriter, req *http.Request) {
						_ = http.NewResponseController(w).EnableFullDuplex()
						if _, err := io.ReadFull(req.Body, make([]byte, 40_000)); err != nil {
							t.Error(err)
						}
						c.answer(w, req)
					})
					from, conn := r.pausing(framing, begun)
					res, err := http.ReadResponse(from, nil)
					if err != nil {
						t.Fatal(err)
					}
					if res.StatusCode != c.status || res.Header.Get(problem.Header) != c.code {
						t.Errorf("%d %v", res.StatusCode, res.Header)
					}
					if _, err := io.ReadAll(res.Body); err != nil {
						t.Errorf("the body: %v", err)
					}
					conn.Close()
				})
			}
		}
	}
}

// The upload ends with its handler, even if the client neither sends nor leaves.
func TestNoGoroutineOutlivesAResponseToAPausedClient(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	r := newRig(t, setup{limit: 1000}, func(w http.ResponseWriter, req *http.Request) { w.WriteHeader(413) })
	var paused sync.WaitGroup
	for range 20 {
		from, _ := r.pausing("Content-Length: 1000000\r\n", strings.Repeat("x", 2000))
		paused.Go(func() {
			if res, err := http.ReadResponse(from, nil); err != nil || res.StatusCode != 413 {
				t.Error(res, err)
			}
			if _, err := io.Copy(io.Discard, from); err != nil { // ends when the server closes the connection
				t.Error(err)
			}
		})
	}
	paused.Wait()
}

func TestAnUploadGoesOnAfterAPause(t *testing.T) {
	t.Parallel()
	for _, http1 := range []bool{true, false} {
		r := newRig(t, setup{limit: 1000, http1: http1}, echo)
		sent := strings.Repeat("0123456789", 30_000)
		from, conn := r.pausing(fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n", len(sent)), sent[:2000])
		go func() {
			for rest := sent[2000:]; rest != ""; {
				n := min(len(rest), 70_000)
				time.Sleep(50 * time.Millisecond)
				_, _ = io.WriteString(conn, rest[:n])
				rest = rest[n:]
			}
		}()
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != sent {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}

func TestAnExpiredTokenIsNeverSent(t *testing.T) {
	t.Parallel()
	const lifetime = 300 * time.Millisecond
	for _, limit := range []int64{1 << 20, 10} {
		for _, http1 := range []bool{true, false} {
			t.Run(fmt.Sprintf("limit %d, HTTP/1 %v", limit, http1), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, setup{http1: http1, limit: limit}, func(w http.ResponseWriter, req *http.Request) {
					fmt.Fprint(w, req.Header.Get("Authorization"))
					_, _ = io.Copy(io.Discard, req.Body)
				})
				r.tokens.lifetime = lifetime
				r.do("GET", "/", nil) // fetches the first token
				from, conn := r.pausing("Content-Length: 4\r\nConnection: close\r\n", "ab")
				time.Sleep(2 * lifetime)
				_, _ = io.WriteString(conn, "cd")
				res, err := http.ReadResponse(from, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(res.Body); err != nil || string(got) == "Bearer token-1" {
					t.Errorf("Mimecast got %q, %v", got, err)
				}
			})
		}
	}
}

// A request may wait for the only connection until its token expires. It is then sent with
// a new one.
func TestATokenThatExpiresWhileItsRequestWaitsForAConnectionIsNotSent(t *testing.T) {
	t.Parallel()
	const lifetime = 200 * time.Millisecond
	first := make(chan bool)
	r := newRig(t, setup{http1: true, up: func(u *upstream.Options) { u.MaxConnections = 1 }}, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/first" {
			first <- true
			time.Sleep(3 * lifetime)
		}
		io.WriteString(w, req.Header.Get("Authorization"))
	})
	r.tokens.lifetime = lifetime
	done := make(chan bool)
	go func() { defer close(done); r.do("GET", "/first", nil) }()
	<-first
	held, err := r.tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if res, got := r.do("POST", "/", strings.NewReader("x")); res.StatusCode != 200 || got == held.Authorization() {
		t.Errorf("%d, Mimecast got %s", res.StatusCode, got)
	}
	<-done
}

// A client that half-closes its connection within the body still gets a response.
func TestABodyThatEndsEarlyIsABadRequest(t *testing.T) {
	for framing, begun := range map[string]string{
		"Content-Length: 10\r\n":         "5byte",
		"Content-Length: 1000000\r\n":    strings.Repeat("x", 5000),
		"Transfer-Encoding: chunked\r\n": "5\r\n5by",
	} {
		for _, limit := range []int64{1 << 20, 4} { // buffered, and streamed
			for _, http1 := range []bool{true, false} {
				t.Run(fmt.Sprintf("%q, limit %d, HTTP/1 %v", framing, limit, http1), func(t *testing.T) {
					r := newRig(t, setup{http1: http1, limit: limit}, func(_ http.ResponseWriter, req *http.Request) {
						if _, err := io.Copy(io.Discard, req.Body); err == nil {
							t.Error("Mimecast took the body for whole")
						}
						<-req.Context().Done() // so that no response precedes the error
						// TLS says goodbye before the connection closes, and a
						// response could still arrive in between.
						panic(http.ErrAbortHandler)
					})
					conn, err := net.Dial("tcp", r.front.Listener.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
					fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\n%s", framing, begun)
					if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
						t.Fatal(err)
					}
					res, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					if got := res.Header.Get(problem.Header); res.StatusCode != http.StatusBadRequest || got != string(event.BadRequestBody) {
						t.Errorf("%d %s", res.StatusCode, got)
					}
				})
			}
		}
	}
}
