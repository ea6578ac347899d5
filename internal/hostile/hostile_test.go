//go:build unix

package hostile_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

var (
	watch = flag.Duration("watch", time.Second, "how long the tests of memory look on while they attack, once all are connected")
	each  = flag.Bool("each", false, "run the tests of memory under each kind of attack alone too, and not only under all of them")
)

func TestMain(m *testing.M) {
	suite.Parallel(8) // most of them wait
	os.Exit(program.Main(m))
}

const (
	// readHeaderTimeout is a client's time to send its header, as docs/security.md says.
	readHeaderTimeout = 10 * time.Second
	// slack is the extra time that a busy machine may take.
	slack = 10 * time.Second
	// shutdownGrace is the time that shutdown may take beyond its delay and timeout.
	shutdownGrace = 3 * time.Second
)

// stand is a program under attack.
type stand struct {
	*testing.T
	sim *simulator.Server
	*program.Program
	client, anew *http.Client // client reuses connections, anew opens one per request
}

// start starts the program in front of a simulator and waits until it is ready.
func start(t *testing.T, environ ...string) *stand {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{RequestLog: -1})
	return watched(t, sim, program.Serve(t, sim, environ...))
}

// startLimited is start for a program whose resources a shell command limits.
func startLimited(t *testing.T, limit string, environ ...string) *stand {
	t.Helper()
	sim := program.Simulate(t, simulator.Options{RequestLog: -1})
	return watched(t, sim, program.StartLimited(t, limit, program.Environ(t, sim, environ...)).AwaitServing().AwaitReady())
}

func watched(t *testing.T, sim *simulator.Server, p *program.Program) *stand {
	p.WatchSignals()
	s := &stand{T: t, sim: sim, Program: p}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return hostile.Dial(ctx, s.Listen) }
	s.client = &http.Client{Timeout: program.Patience, Transport: keyed{&http.Transport{DialContext: dial}}}
	s.anew = &http.Client{Timeout: program.Patience, Transport: keyed{&http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// gatewayKey is the API key of the programs that need one.
const gatewayKey = "the-key-of-the-gateway-0123456789"

// keyed adds the API key, which a program without keys ignores.
type keyed struct{ *http.Transport }

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Proxy-Key", gatewayKey)
	return k.Transport.RoundTrip(r)
}

// open opens a connection to the program, which is closed when the test ends.
func (s *stand) open(address string) net.Conn {
	s.Helper()
	c, err := hostile.Dial(s.Context(), address)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

// say opens a connection and writes text. The program may stop reading early.
func (s *stand) say(address, text string) net.Conn {
	s.Helper()
	c := s.open(address)
	_ = c.SetWriteDeadline(time.Now().Add(slack))
	_, _ = io.WriteString(c, text)
	return c
}

// whoami makes the simplest request.
func (s *stand) whoami() error { return ask(s.client, "http://localhost/identity/whoami") }

// silentInFlood is how long a new connection may say nothing while package server displaces
// a flood of them.
const silentInFlood = 250 * time.Millisecond

// errSentLate is the error of a client that the program may disconnect. On a busy machine,
// the goroutines of this package's attackers can keep its honest clients from sending.
var errSentLate = errors.New("the client sent its request too late for a flood")

// ask checks that a request gets status 200 and a complete body.
func ask(client *http.Client, url string) error {
	var dialed, sent atomic.Pointer[time.Time]
	now := func(at *atomic.Pointer[time.Time]) { t := time.Now(); at.Store(&t) }
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		ConnectStart: func(string, string) { now(&dialed) },
		WroteRequest: func(httptrace.WroteRequestInfo) { now(&sent) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		sent.CompareAndSwap(nil, new(time.Now()))
		if at := dialed.Load(); at != nil && sent.Load().Sub(*at) >= silentInFlood {
			return fmt.Errorf("%w: %w", errSentLate, err)
		}
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %w, %.200q", res.StatusCode, err, body)
	}
	return nil
}

// admin requests a path from the admin listener on a new connection, as a kubelet does.
func (s *stand) admin(path string) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return hostile.Dial(ctx, s.Admin)
	}}
	return ask(&http.Client{Timeout: program.Patience, Transport: transport}, "http://localhost"+path)
}

// resources are what clients can make the program use.
type resources struct{ descriptors, goroutines float64 }

func (s *stand) resources() resources {
	return resources{s.Metric("process_open_fds"), s.Metric("go_goroutines")}
}

// comesBackTo waits until the program uses no more resources than before.
func (s *stand) comesBackTo(before resources, bound time.Duration) {
	s.Helper()
	var now resources
	defer func() { s.Logf("descriptors and goroutines: %v before, %v after", before, now) }()
	program.AwaitWithin(s.T, bound, "descriptors and goroutines are back", func() bool {
		now = s.resources()
		return now.descriptors <= before.descriptors+5 && now.goroutines <= before.goroutines+10
	})
}

// honest makes ten requests a second, alternately on a reused and a new connection, until
// stop is called. Each must get 200.
func (s *stand) honest() (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	var all sync.WaitGroup
	var asked, late, lost atomic.Int64
	for i, client := range []*http.Client{s.client, s.anew} {
		all.Go(func() {
			every := time.NewTicker(200 * time.Millisecond)
			defer every.Stop()
			for ctx.Err() == nil {
				asked.Add(1)
				began := time.Now()
				err := ask(client, fmt.Sprintf("http://localhost/identity/whoami?honest=%d", i))
				if errors.Is(err, errSentLate) {
					late.Add(1)
				} else if err != nil && lost.Add(1) <= 3 {
					s.Errorf("an honest client after %v: %v", time.Since(began).Round(time.Millisecond), err)
				}
				<-every.C
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
		s.Logf("an honest client: %d requests, %d sent late, %d lost", asked.Load(), late.Load(), lost.Load())
	})
	s.Cleanup(stop)
	return stop
}

// probed requests a path of the admin listener twice a second until stop is called.
func (s *stand) probed(path string) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	ended := make(chan struct{})
	var slowest time.Duration
	late, failed := 0, 0
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			began := time.Now()
			err := s.admin(path)
			slowest = max(slowest, time.Since(began))
			if errors.Is(err, errSentLate) {
				late++
			} else if err != nil {
				if failed++; failed <= 3 {
					s.Errorf("%s: %v", path, err)
				}
			}
			time.Sleep(time.Second / 2)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		s.Logf("%s: %v at most, %d sent late, %d failed", path, slowest.Round(time.Millisecond), late, failed)
	})
	s.Cleanup(stop)
	return stop
}

// listen returns the value of a listen variable for a network.
func listen(t *testing.T, network string) string {
	t.Helper()
	if network == "tcp" {
		return "127.0.0.1:0"
	}
	return "unix:" + filepath.Join(program.ShortDir(t), "s")
}

// request returns the bytes of a request.
func request(line string, fields ...string) string {
	return line + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}
