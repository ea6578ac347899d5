package halfclose_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/halfclose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type half interface {
	net.Conn
	CloseWrite() error
}

// serve serves h, and returns a func that sends a request.
func serve(t *testing.T, network string, h http.HandlerFunc) (send func(request string) half) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(halfclose.Wrap(h))
	s.Listener.Close()
	s.Listener = halfclose.Listen(l)
	s.Config.ConnContext = halfclose.Context
	s.Start()
	t.Cleanup(s.Close)
	return func(request string) half {
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		return c.(half)
	}
}

const (
	get    = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	get10  = "GET / HTTP/1.0\r\nHost: x\r\n\r\n"
	hinted = "GET /hinted HTTP/1.1\r\nHost: x\r\n\r\n"
	post   = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
)

func TestHalfClosedClientGetsItsAnswer(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, took := range []time.Duration{0, 200 * time.Millisecond} {
			for _, request := range []string{get, get10, post, get + post + get} {
				send := serve(t, network, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					select {
					case <-time.After(took):
						fmt.Fprint(w, "here")
					case <-r.Context().Done():
						t.Error("taken for gone")
					}
				})
				c := send(request)
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				answers := 0
				for from := bufio.NewReader(c); ; {
					res, err := http.ReadResponse(from, nil)
					if err != nil {
						break
					}
					body, err := io.ReadAll(res.Body)
					if res.StatusCode == 100 && request != get10 {
						continue
					}
					if answers++; err != nil || res.StatusCode != 200 || string(body) != "here" {
						t.Errorf("%d %q %v", res.StatusCode, body, err)
					}
				}
				if want := strings.Count(request, "HTTP/1."); answers != want {
					t.Errorf("%s, %v: %d answers to %d requests", network, took, answers, want)
				}
			}
		}
	}
}

func TestClientThatIsGoneEndsItsRequest(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, request := range []string{get, post, hinted} {
			arrived, ended := make(chan bool), make(chan bool)
			send := serve(t, network, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if r.URL.Path == "/hinted" {
					w.WriteHeader(http.StatusEarlyHints)
				}
				close(arrived)
				<-r.Context().Done()
				close(ended)
			})
			c := send(request)
			<-arrived
			c.Close()
			<-ended
		}
	}
}

func TestConnectionsAreKeptAlive(t *testing.T) {
	send := serve(t, "tcp", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	c := send(post)
	from := bufio.NewReader(c)
	for i := range 100 {
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "abc" {
			t.Errorf("%q %v", body, err)
		}
		if _, err := io.WriteString(c, post); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnswerThatPausesForLongEndsForAClientThatClosedItsHalf(t *testing.T) {
	t.Cleanup(halfclose.SetSilence(20 * time.Millisecond)) // once the server is closed
	ended := make(chan bool)
	send := serve(t, "tcp", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	c := send(get)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-ended
}
