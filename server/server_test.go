package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	suite.Parallel(8)
	goleak.VerifyTestMain(m)
}

// patience limits every wait for something that must happen.
const patience = 30 * time.Second

// start serves h at a free address, or at a socket if network is unix.
func start(t *testing.T, network string, l Limits, h http.Handler) (*Server, string) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	at, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Handler: h, Context: context.Background(), Limits: l})
	served := make(chan error, 1)
	go func() { served <- s.Serve(at) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return s, at.Addr().String()
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// isClosed reports whether the server closes c within patience.
func isClosed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
		time.Sleep(time.Millisecond)
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

func get(t *testing.T, c net.Conn) {
	t.Helper()
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "hello" {
		t.Fatalf("got %q, %v", body, err)
	}
}

func TestClientsWithoutARequestLoseTheOldestConnection(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	beginnings := map[string]string{
		"silent": "", "half a request line": "GET /aaaa", "half a header": "GET / HTTP/1.1\r\na:b\r\nc",
		"a full buffer": "GET /" + strings.Repeat("a", 4091),
	}
	for name, beginning := range beginnings {
		t.Run(name, func(t *testing.T) {
			s, address := start(t, "tcp", Limits{MaxWaiting: 4, MaxPartial: 4}, hello)
			kept := dial(t, "tcp", address)
			get(t, kept) // it has sent a request and is now idle
			var waiters []net.Conn
			for range 12 {
				c := dial(t, "tcp", address)
				send(t, c, beginning)
				waiters = append(waiters, c)
				if beginning != "" { // so that they change state in this order
					await(t, "its first bytes", func() bool { return s.conns.counts[waiting].Load() == 0 })
				}
			}
			for _, c := range waiters[:7] {
				if !isClosed(c) {
					t.Fatal("an old connection without a request was kept")
				}
			}
			get(t, kept)
			get(t, dial(t, "tcp", address))
			if n := s.conns.counts[waiting].Load() + s.conns.counts[partial].Load(); n > 5 {
				t.Errorf("%d connections wait, more than 4 and the last", n)
			}
		})
	}
}

func TestIdleConnectionThatBeginsARequestCountsAsPartial(t *testing.T) {
	s, address := start(t, "tcp", Limits{MaxPartial: 2}, hello)
	c := dial(t, "tcp", address)
	get(t, c)
	await(t, "the idle connection", func() bool { return s.conns.counts[idle].Load() == 1 })
	send(t, c, "GET / HTTP/1.1\r\nHost: ")
	await(t, "its beginning", func() bool { return s.conns.counts[partial].Load() == 1 })
	send(t, c, "a\r\n\r\n")
	await(t, "its return", func() bool { return s.conns.counts[idle].Load() == 1 })
}

// TestClientThatHasSentItsRequestIsNeverClosed checks that a burst loses no request, even
// if more clients connect at once than may wait.
func TestClientThatHasSentItsRequestIsNeverClosed(t *testing.T) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var clients []net.Conn
	for range 100 { // the system accepts them before the server does
		c := dial(t, "tcp", at.Addr().String())
		send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		clients = append(clients, c)
	}
	s := New(Options{Handler: hello, Context: context.Background(), Limits: Limits{MaxWaiting: 4, MaxPartial: 4, MaxConnections: 600}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(at) }()
	for i, c := range clients {
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		_ = res.Body.Close()
	}
	if err := errors.Join(s.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func TestPastTheLimitOfIdleConnectionsTheOldestIsClosed(t *testing.T) {
	s, address := start(t, "tcp", Limits{MaxIdle: 2}, hello)
	var clients []net.Conn
	for i := range 3 {
		c := dial(t, "tcp", address)
		get(t, c)
		clients = append(clients, c)
		await(t, "the idle connection", func() bool { return s.conns.counts[idle].Load() == int64(min(i+1, 2)) })
	}
	if !isClosed(clients[0]) {
		t.Error("the oldest is still open")
	}
	get(t, clients[1])
	get(t, clients[2])
}

func TestPastTheLimitOfConnectionsANewOneReplacesAnIdleOneOrIsClosed(t *testing.T) {
	release := make(chan struct{})
	block := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/block" {
			<-release
		}
		hello(w, r)
	})
	s, address := start(t, "tcp", Limits{MaxConnections: 2}, block)
	defer close(release)
	busy := dial(t, "tcp", address)
	send(t, busy, "GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
	await(t, "the request", func() bool { return s.conns.counts[serving].Load() == 1 })
	spare := dial(t, "tcp", address)
	get(t, spare)
	await(t, "the idle connection", func() bool { return s.conns.counts[idle].Load() == 1 })
	next := dial(t, "tcp", address)
	get(t, next)
	if !isClosed(spare) {
		t.Error("the idle connection is still open")
	}
	send(t, next, "GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
	await(t, "the second request", func() bool { return s.conns.counts[serving].Load() == 2 })
	if !isClosed(dial(t, "tcp", address)) {
		t.Error("a connection past the limit is open")
	}
}

func TestClientThatDoesNotReadIsCutAfterTheWriteTimeout(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			ended := make(chan struct{})
			endless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				for buf := make([]byte, 32<<10); ; {
					if _, err := w.Write(buf); err != nil {
						return
					}
				}
			})
			_, address := start(t, network, Limits{WriteTimeout: 100 * time.Millisecond}, endless)
			send(t, dial(t, network, address), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("the handler still writes")
			}
		})
	}
}

func TestResponseThatPausesIsNotCut(t *testing.T) {
	t.Parallel()
	const pause = 300 * time.Millisecond
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(pause) // longer than the timeout, which limits only writes
		}
	})
	_, address := start(t, "tcp", Limits{WriteTimeout: pause / 3}, slow)
	res, err := http.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || len(body) != 15 {
		t.Errorf("got %q, %v", body, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestShutdownWaitsForNoClientThatSendsOrReadsNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("net/http waits for 5 s for a client that has sent nothing")
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			large := make([]byte, 32<<20)
			s, address := start(t, network, Limits{WriteTimeout: time.Hour}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) }))
			for i := range 20 {
				c := dial(t, network, address)
				switch i % 4 {
				case 0: // sends nothing
				case 1:
					send(t, c, "GET / HT")
				case 2:
					send(t, c, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 2))
				case 3:
					send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
						t.Fatal("cannot half-close")
					}
				}
			}
			await(t, "the stalled responses", func() bool { return s.conns.counts[serving].Load() >= 10 })
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}

func TestInFlightRequestsGetTheirResponseInAShutdown(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	s, address := start(t, "tcp", Limits{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		hello(w, r)
	}))
	c := dial(t, "tcp", address)
	send(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(context.Background()) }()
	await(t, "the end of listening", func() bool {
		probe, err := net.Dial("tcp", address)
		if err == nil {
			_ = probe.Close()
		}
		return err != nil
	})
	close(release)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A client that sends a burst on its idle connections in the moment of a shutdown
// would lose all of it if they were closed at once.
func TestADrainClosesIdleConnectionsOneByOne(t *testing.T) {
	t.Parallel()
	s, address := start(t, "tcp", Limits{}, hello)
	var kept []net.Conn
	for range 40 {
		c := dial(t, "tcp", address)
		get(t, c)
		kept = append(kept, c)
	}
	ctx, hurry := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx, Drain{Delay: patience, Abort: func() {}}) }()
	if !isClosed(kept[0]) {
		t.Error("the oldest idle connection was kept")
	}
	get(t, kept[len(kept)-1])
	if !isClosed(kept[len(kept)-1]) {
		t.Error("a connection was kept after a response during the drain")
	}
	hurry()
	if err := <-drained; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, c := range kept {
		if !isClosed(c) {
			t.Error("an idle connection outlived the drain")
		}
	}
}

func TestListenersOfOneServerShareItsLimits(t *testing.T) {
	const most = 4
	s := New(Options{Handler: http.NotFoundHandler(), Context: context.Background(), Limits: Limits{MaxConnections: most}})
	var served sync.WaitGroup
	var addresses []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, l.Addr().String())
		served.Go(func() {
			if err := s.Serve(l); err != nil {
				t.Errorf("serving: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		_ = s.Close()
		served.Wait()
	})
	// Dial all at once, so that several accept loops compete for the last place.
	conns := make([]net.Conn, 40)
	var dialing sync.WaitGroup
	for i := range conns {
		dialing.Go(func() {
			c, err := net.Dial("tcp", addresses[i%len(addresses)])
			if err != nil {
				t.Errorf("dialing: %v", err)
				return
			}
			conns[i] = c
		})
	}
	dialing.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	if t.Failed() {
		return
	}
	var closed atomic.Int64
	var reading sync.WaitGroup
	for _, c := range conns {
		reading.Go(func() {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				closed.Add(1)
			}
		})
	}
	await(t, "the end of those past the limit", func() bool { return closed.Load() == int64(len(conns)-most) })
	if n := s.conns.total(); n != most {
		t.Errorf("%d connections are kept", n)
	}
	_ = s.Close() // closes the other connections
	reading.Wait()
}

func TestListenersThatAcceptAtOnceTakeTurns(t *testing.T) {
	const most = 1
	for range 2000 {
		table := newConnTable(Limits{MaxConnections: most}, nil)
		begin := make(chan struct{})
		var admitted atomic.Int64
		var accepting sync.WaitGroup
		for range 4 {
			near, far := net.Pipe()
			_ = far.Close() // nothing is sent
			accepting.Go(func() {
				<-begin
				if table.admit(near, false) != nil {
					admitted.Add(1)
				}
			})
		}
		close(begin)
		accepting.Wait()
		if n := admitted.Load(); n != most {
			t.Fatalf("%d connections were admitted, and the limit is %d", n, most)
		}
	}
}

func TestFailedAcceptIsReportedOnce(t *testing.T) {
	failing := &failingListener{errs: make(chan error, 3)}
	for i := range 3 {
		failing.errs <- fmt.Errorf("failure %d", i)
	}
	close(failing.errs)
	reports := 0
	l := &listener{Listener: failing, conns: newConnTable(Limits{MaxConnections: 1}, nil), acceptFailed: func(error) { reports++ }}
	for range 4 {
		if _, err := l.Accept(); err == nil {
			t.Fatal("it accepted")
		}
	}
	if reports != 1 {
		t.Errorf("%d reports, want 1", reports)
	}
}

type failingListener struct {
	net.Listener
	errs chan error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if err, ok := <-l.errs; ok {
		return nil, err
	}
	return nil, net.ErrClosed
}

func TestRejectionsOfNetHTTPAreReplaced(t *testing.T) {
	t.Parallel()
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var got []int // written before each response, read after it
	s := New(Options{
		Handler: hello, Context: context.Background(), Limits: Limits{MaxHeaderBytes: 1 << 10},
		Reject: func(r Rejection) []byte {
			got = append(got, r.Status)
			return []byte("HTTP/1.1 499 Ours\r\nContent-Length: 4\r\nConnection: close\r\n\r\nours")
		},
	})
	served := make(chan error, 1)
	go func() { served <- s.Serve(at) }()
	for _, text := range []string{
		"GET / HTTP/1.1\r\n\r\n", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /% HTTP/1.1\r\nHost: a\r\n\r\n", "junk\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nx: " + strings.Repeat("x", 10<<10) + "\r\n\r\n",
	} {
		c := dial(t, "tcp", at.Addr().String())
		send(t, c, text)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%.20q: %v", text, err)
		}
		body, err := io.ReadAll(res.Body)
		if res.StatusCode != 499 || string(body) != "ours" || err != nil {
			t.Errorf("%.20q: got %d %q, %v", text, res.StatusCode, body, err)
		}
	}
	await(t, "the end of the connections, on which net/http lingers", func() bool { return s.conns.total() == 0 })
	if err := errors.Join(s.Close(), <-served); err != nil {
		t.Error(err)
	}
	if want := []int{400, 400, 400, 400, 431}; !slices.Equal(got, want) {
		t.Errorf("rejected with %v, want %v", got, want)
	}
}
