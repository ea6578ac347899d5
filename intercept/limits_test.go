package intercept

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/server"
)

// silent starts a server that accepts connections and sends nothing.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { defer c.Close(); io.Copy(io.Discard, c) })
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().String()
}

// ended waits until the proxy closes a connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := io.Copy(io.Discard, c); errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatal("the connection is still open")
	}
}

func TestIdleTunnelsAndHalfHandshakesEnd(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const n = 1000
	nobody := silent(t)
	f := start(t, Options{IdleTimeout: 3 * time.Second, HandshakeTimeout: 3 * time.Second})
	var held []net.Conn
	for i := range n {
		conn, res := f.connect(t, nobody)
		half, intercepted := f.connect(t, host+":443")
		if res.StatusCode != 200 || intercepted.StatusCode != 200 {
			t.Fatalf("tunnel %d: %d, %d", i, res.StatusCode, intercepted.StatusCode)
		}
		if i%2 == 0 { // the header of a TLS record without its body
			half.Write([]byte{22, 3, 1, 2, 0})
		}
		slow := f.dial(t)
		if _, err := io.WriteString(slow, "CONNECT "); err != nil {
			t.Fatal(err)
		}
		held = append(held, conn, half)
		if i%10 == 0 {
			held = append(held, slow)
		} else {
			slow.Close()
		}
	}
	if res, _ := get(t, f.client(t, ""), "https://"+host+"/"); res.StatusCode != 200 {
		t.Errorf("a request beside them: %d", res.StatusCode)
	}
	if _, res := f.connect(t, nobody); res.StatusCode != 200 {
		t.Errorf("a tunnel beside them: %d", res.StatusCode)
	}
	for _, c := range held {
		ended(t, c)
	}
	eventually(t, "the reports", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		of := map[event.InterceptOutcome]int{}
		for _, done := range f.tunnels {
			of[done.Outcome]++
		}
		return of[event.InterceptHandshakeFailed] == n && of[event.InterceptIdle] >= n
	})
}

func TestATunnelIsIdleOnlyIfBothDirectionsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Tunnel
		p := New(Options{Authority: testAuthority(), IdleTimeout: time.Minute, Trace: Trace{TunnelDone: func(done Tunnel) { got = append(got, done) }}})
		client, near := net.Pipe()
		far, server := net.Pipe()
		tunnel := &tunnel{proxy: p, began: time.Now(), Conn: near, other: far}
		if rejected := p.add(tunnel); rejected != nil {
			t.Fatal(rejected)
		}
		tunnel.setOpen()
		go tunnel.relay()
		for range 10 { // the client sends nothing
			time.Sleep(50 * time.Second)
			if _, err := server.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		last := time.Now()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		synctest.Wait()
		if after := time.Since(last); after != time.Minute || len(got) != 1 || got[0].Outcome != event.InterceptIdle || got[0].Out != 10 {
			t.Errorf("after %v: %+v", after, got)
		}
	})
}

func TestAPeerThatDoesNotReadLosesItsTunnel(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := start(t, Options{IdleTimeout: 200 * time.Millisecond})
	client, _ := f.connect(t, l.Addr().String())
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	buf := make([]byte, 1<<20)
	for err == nil { // the server never reads
		_, err = client.Write(buf)
	}
	if got := f.reported(t, 1)[0]; got.In == 0 {
		t.Errorf("%+v", got)
	}
}

func TestTerminatedTunnelsWithoutARequestEnd(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // with an empty SETTINGS frame
	for protocol, begin := range map[string]string{"http/1.1": "GET / HTTP/1.1\r\nHost: ", "h2": http2Preface} {
		f := start(t, Options{IdleTimeout: 200 * time.Millisecond, HandshakeTimeout: time.Second})
		conn, _ := f.connect(t, host+":443")
		secure := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: pool(f.o.Authority), NextProtos: []string{protocol}})
		if _, err := io.WriteString(secure, begin); err != nil {
			t.Fatal(err)
		}
		ended(t, conn)
		f.outcome(t, event.InterceptTerminated)
	}
}

func TestTunnelsAreBoundedByKind(t *testing.T) {
	nobody := silent(t)
	f := start(t, Options{MaxTunnels: 2})
	first, _ := f.connect(t, nobody)
	f.connect(t, nobody)
	_, res := f.connect(t, nobody)
	if res.StatusCode != 503 || code(res) != event.TooBusy || res.Header.Get("Retry-After") == "" {
		t.Errorf("the third: %d", res.StatusCode)
	}
	f.outcome(t, event.InterceptTooBusy)
	if _, res := f.connect(t, host+":443"); res.StatusCode != 200 {
		t.Errorf("a tunnel of the other kind: %d", res.StatusCode)
	}
	first.Close()
	f.reported(t, 2)
	if _, res := f.connect(t, nobody); res.StatusCode != 200 {
		t.Errorf("after one has ended: %d", res.StatusCode)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	f := start(t, Options{MaxTunnels: 2})
	for range 6 {
		f.dial(t)
	}
	eventually(t, "six connections", func() bool { return f.conns.Load() == 6 })
	ended(t, f.dial(t))
}

func TestWhoLeavesDuringTheDialLeavesNothing(t *testing.T) {
	began := make(chan struct{})
	f := start(t, Options{Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	conn := f.dial(t)
	if _, err := io.WriteString(conn, "CONNECT files.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	conn.Close()
	f.outcome(t, event.InterceptClientGone)
}

// shutDown runs Shutdown in the background. The channel delivers its result.
func (f *fixture) shutDown(timeout time.Duration) chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		done <- f.Shutdown(ctx)
	}()
	return done
}

func TestShutdownEndsWhatIsIdle(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	nobody := silent(t)
	f := start(t, Options{})
	tunnel, _ := f.connect(t, nobody)
	half, _ := f.connect(t, host+":443")
	unused, _ := f.connect(t, host+":443")
	if err := tls.Client(unused, &tls.Config{ServerName: host, RootCAs: pool(f.o.Authority)}).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h2 := range []bool{false, true} {
		c := f.client(t, "")
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		get(t, c, "https://"+host+"/")
	}
	if err := <-f.shutDown(time.Minute); err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{tunnel, half, unused} {
		ended(t, c)
	}
	if _, err := net.Dial("tcp", f.address); err == nil {
		t.Error("it still listens")
	}
	for _, got := range f.reported(t, 5) {
		if got.Outcome != event.InterceptShutdown && got.Outcome != event.InterceptTerminated {
			t.Errorf("%+v", got)
		}
	}
}

func TestShutdownWaitsForRequestsAndThenCuts(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		for _, cut := range []bool{false, true} {
			inside, release := make(chan struct{}), make(chan struct{})
			f := start(t, Options{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(inside)
				select {
				case <-release:
				case <-r.Context().Done():
				}
				io.WriteString(w, "done")
			})})
			c := f.client(t, "")
			c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
			answer := make(chan error, 1)
			go func() {
				res, err := c.Get("https://" + host + "/")
				if err == nil {
					var body []byte
					body, err = io.ReadAll(res.Body)
					res.Body.Close()
					if string(body) != "done" {
						err = errors.New("the response was cut")
					}
				}
				answer <- err
			}()
			<-inside
			timeout := time.Minute
			if cut {
				timeout = 100 * time.Millisecond
			}
			done := f.shutDown(timeout)
			if !cut {
				eventually(t, "the beginning of the shutdown", func() bool { return f.stopping.Err() != nil })
				close(release)
			}
			if err := <-done; (err != nil) != cut || cut && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("HTTP/2 %t, cut %t: %v", h2, cut, err)
			}
			if err := <-answer; (err != nil) != cut {
				t.Errorf("HTTP/2 %t, cut %t: %v", h2, cut, err)
			}
		}
	}
}

func TestShutdownLetsABusyTunnelEndAndRejectsNewOnes(t *testing.T) {
	began := make(chan struct{})
	f := start(t, Options{Dial: func(ctx context.Context, _ string) (net.Conn, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	dialing := f.dial(t)
	if _, err := io.WriteString(dialing, "CONNECT files.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	done := f.shutDown(time.Minute)
	res, _ := send(t, dialing, http.MethodConnect, "")
	if res.StatusCode != 503 || code(res) != event.ShuttingDown {
		t.Errorf("%d", res.StatusCode)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.outcome(t, event.InterceptShutdown)
}

func TestTheDataPortsServerServesTheProxy(t *testing.T) {
	f := start(t, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Options{Handler: f.Proxy, Context: t.Context(), Limits: server.Limits{MaxConnections: 8, MaxWaiting: 4, MaxPartial: 4, MaxIdle: 4, WriteTimeout: time.Minute}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	f.address = l.Addr().String()
	foreign := echo(t)
	for range 20 { // more than the limit for connections
		c := f.client(t, "")
		if res, _ := get(t, c, "https://"+host+"/"); res.StatusCode != 200 || res.Proto != "HTTP/2.0" {
			t.Error(res.StatusCode, res.Proto)
		}
		c.CloseIdleConnections()
		conn, _ := f.connect(t, foreign)
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(conn); string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := <-f.shutDown(time.Minute); err != nil {
		t.Error(err)
	}
}

func TestServerOfTheOptionsServesTheRequestsInside(t *testing.T) {
	type key struct{}
	f := start(t, Options{
		Server: func(h http.Handler) *http.Server {
			return &http.Server{Handler: h, MaxHeaderBytes: 8 << 10, BaseContext: func(net.Listener) context.Context {
				return context.WithValue(context.Background(), key{}, "base")
			}}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Context().Value(key{}).(string)) }),
	})
	if _, body := get(t, f.client(t, ""), "https://"+host+"/"); body != "base" {
		t.Error(body)
	}
}

func TestRequestsAfterCloseAndCloseWithoutServe(t *testing.T) {
	p := New(Options{Authority: testAuthority(), Handler: http.NotFoundHandler()})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if BaseURL(t.Context()) != "" {
		t.Error("a context from elsewhere has a base URL")
	}
}

func TestAClientThatDoesNotReadLosesItsTerminatedTunnel(t *testing.T) {
	for name, c := range map[string]struct {
		o        Options
		shutdown bool
		want     time.Duration
	}{
		"default":              {Options{IdleTimeout: time.Minute}, false, time.Minute},
		"its timeout":          {Options{IdleTimeout: time.Hour, WriteTimeout: 20 * time.Second}, false, 20 * time.Second},
		"shutdown":             {Options{WriteTimeout: time.Minute}, true, 5 * time.Second},
		"shutdown, less given": {Options{WriteTimeout: 2 * time.Second}, true, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := untilCut(t, c.o, c.shutdown); got != c.want {
					t.Errorf("after %v, want %v", got, c.want)
				}
			})
		})
	}
}

// untilCut returns after what time a proxy disconnects a client that never reads. It must run in
// a synctest bubble.
func untilCut(t *testing.T, o Options, shutdown bool) time.Duration {
	a, err := NewAuthority(mimecast.APIHosts()) // a new one, valid by the bubble's clock
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	o.Authority = a
	o.Trace.TunnelDone = func(Tunnel) { ended <- time.Now() }
	o.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, err := w.Write(make([]byte, 1<<20)); err == nil; {
			_, err = w.Write(make([]byte, 1<<20))
		}
	})
	p := New(o)
	defer p.Close()
	client, near := net.Pipe()
	tunnel := &tunnel{proxy: p, began: time.Now(), Conn: near, report: Tunnel{Host: host, Intercepted: true}, authorized: func(context.Context) bool { return true }}
	if rejected := p.add(tunnel); rejected != nil {
		t.Fatal(rejected)
	}
	tunnel.setOpen()
	go p.terminate(tunnel)
	secure := tls.Client(client, &tls.Config{ServerName: host, RootCAs: pool(a)})
	if _, err := io.WriteString(secure, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // until the response blocks
	began := time.Now()
	if shutdown {
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	return (<-ended).Sub(began)
}
