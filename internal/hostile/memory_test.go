//go:build linux

package hostile_test

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mimecast-proxy/internal/hostile"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// siege is a program with the manifests' memory limit. Its clients make it use as much
// memory as they can.
type siege struct {
	*stand
	memory *program.Memory
	ctx    context.Context
	all    sync.WaitGroup
	opened sync.WaitGroup // done when every connection was opened once
}

// besiege starts the program in a cgroup. It skips the test if that is not possible.
func besiege(t *testing.T, limit int64, environ ...string) *siege {
	t.Helper()
	memory, err := program.LimitMemory(t, limit)
	if err != nil {
		t.Skip(err)
	}
	sim := program.Simulate(t, simulator.Options{RequestLog: -1})
	environ = program.Environ(t, sim, append(environ, "PROXY_SHUTDOWN_TIMEOUT="+siegeTimeout.String())...)
	p := program.StartLimited(t, memory.Enter(), environ).AwaitServing().AwaitReady()
	g := &siege{stand: watched(t, sim, p), memory: memory}
	var stop context.CancelFunc
	g.ctx, stop = context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); g.all.Wait() })
	return g
}

const siegeTimeout = 2 * time.Second

// hold keeps n connections to an address open. Each sends a text and reads nothing. Like an
// attacker, it reopens a connection that the program closes, or after 5 to 15 s.
func (g *siege) hold(address string, n int, text func(i int) string) {
	for i := range n {
		g.opened.Add(1)
		g.all.Go(func() {
			once := sync.OnceFunc(g.opened.Done)
			defer once()
			for g.ctx.Err() == nil {
				g.one(address, text(i), once)
			}
		})
	}
}

func (g *siege) one(address, text string, opened func()) {
	ctx, leave := context.WithTimeout(g.ctx, 5*time.Second+rand.N(10*time.Second))
	defer leave()
	c, err := hostile.Dial(ctx, address)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { hostile.Abort(c) })
		defer stop()
		defer hostile.Abort(c)
		defer time.AfterFunc(2*time.Second, opened).Stop() // even if the program reads only a part of the text
		_, _ = io.WriteString(c, text)
	}
	opened()
	<-ctx.Done()
}

// assaults are attacks that use up memory.
var assaults = map[string]func(g *siege){
	"fat headers": func(g *siege) {
		six := hostile.FatHeader("/identity/whoami", 63_000, 6)
		long := hostile.FatHeader("/identity/whoami", 63_000, 4000)
		for _, address := range []string{g.Listen, g.Admin} {
			g.hold(address, 500, func(i int) string { return []string{six, six, six, long}[i%4] })
		}
	},
	"fat headers of one line": func(g *siege) {
		line := "GET /" + strings.Repeat("a", 62_000)
		for _, address := range []string{g.Listen, g.Admin} {
			g.hold(address, 500, func(int) string { return line })
		}
	},
	"unread downloads": func(g *siege) {
		g.hold(g.Listen, 40, func(int) string {
			return request("POST /api/archive/get-file?id=unread&size=64MiB", "Content-Length: 0")
		})
	},
	"silent uploads": func(g *siege) {
		g.hold(g.Listen, 1010, func(int) string { return request("POST /_simulator/echo", "Content-Length: 65536") })
	},
	"idle connections": func(g *siege) {
		g.hold(g.Listen, 5000, func(i int) string { return []string{"", request("GET /identity/../idle")}[i%2] })
	},
	"unread metrics": func(g *siege) {
		g.hold(g.Admin, 8, func(int) string { return strings.Repeat(request("GET /metrics"), 20_000) })
	},
}

// endure attacks the program, checks that it serves, and stops it during the attack.
func (g *siege) endure(names ...string) {
	g.Helper()
	stops := []func(){g.honest(), g.probed("/livez"), g.probed("/metrics")}
	began := time.Now()
	for _, name := range names {
		assaults[name](g)
	}
	g.opened.Wait()
	g.Logf("all were connected after %v", time.Since(began).Round(time.Millisecond))
	for deadline := time.Now().Add(*watch); time.Now().Before(deadline) && !g.Ended(); {
		time.Sleep(50 * time.Millisecond)
	}
	for _, stop := range stops {
		stop()
	}
	if n := g.memory.Kills(g.T); n > 0 || g.Ended() {
		g.Fatalf("it ended with %v, of %d killed for want of memory: %v", g.Cmd.ProcessState, n, g.memory)
	}
	began = time.Now()
	g.Signal(syscall.SIGTERM)
	g.ExitWithin(siegeTimeout + shutdownGrace + slack/2)
	g.Logf("it ended %v after SIGTERM; %v", time.Since(began).Round(time.Millisecond), g.memory)
	if n := g.memory.Kills(g.T); n > 0 {
		g.Errorf("it was killed for want of memory at its end: %v", g.Cmd.ProcessState)
	}
}

// These tests use both processors, so they do not run in parallel.
func TestSidecarEndures(t *testing.T) {
	suite.Slow(t)
	names := slices.Sorted(maps.Keys(assaults))
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if !*each {
				t.Skip("only with -each")
			}
			besiege(t, 128<<20, "GOMEMLIMIT=64MiB").endure(name)
		})
	}
	t.Run("all together", func(t *testing.T) {
		// Together they hold 1,050 requests. With the default limit, 503 would be the right
		// response.
		besiege(t, 128<<20, "GOMEMLIMIT=64MiB", "PROXY_MAX_REQUESTS=1100").endure(names...)
	})
}

// All clients of the gateway have a key, except those whose headers are too short to
// contain it.
func TestGatewayEndures(t *testing.T) {
	suite.Slow(t)
	withKey := func(line string, fields ...string) string {
		return request(line, append(fields, "X-Proxy-Key: "+gatewayKey)...)
	}
	g := besiege(t, 256<<20, "GOMEMLIMIT=128MiB", "PROXY_API_KEY="+gatewayKey)
	g.hold(g.Listen, 75, func(int) string {
		return withKey("POST /api/archive/get-file?id=unread&size=64MiB", "Content-Length: 0")
	})
	g.hold(g.Listen, 500, func(int) string { return hostile.FatHeader("/identity/whoami", 63_000, 6) })
	g.hold(g.Listen, 500, func(i int) string { return request("POST /_simulator/echo", "Content-Length: 65536") })
	g.endure("unread metrics", "idle connections")
}

// All memory is released once the clients are gone.
func TestMemoryComesBack(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t, "GOMEMLIMIT=64MiB")
	if err := s.whoami(); err != nil {
		t.Fatal(err)
	}
	s.client.CloseIdleConnections()
	before, heap := s.resources(), s.Metric("go_memstats_heap_inuse_bytes")
	ctx, stop := context.WithTimeout(t.Context(), *watch)
	defer stop()
	crowd := hostile.Crowd{Addresses: []string{s.Listen, s.Admin}, Clients: 300, Seed: rand.Uint64()}
	t.Logf("seed %d", crowd.Seed)
	crowd.Run(ctx)
	t.Logf("%v", crowd.Counts())
	s.comesBackTo(before, readHeaderTimeout+slack)
	program.AwaitWithin(s.T, time.Minute, "the heap is back", func() bool {
		return s.Metric("go_memstats_heap_inuse_bytes") < heap+16<<20 && s.Metric("mimecast_proxy_replay_buffer_bytes") == 0
	})
	if err := s.whoami(); err != nil {
		t.Error(err)
	}
}

// An announced body must not reserve memory.
func TestSilentUploadsTakeNoMemoryForBodies(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := start(t, "GOMEMLIMIT=64MiB")
	for i := range 1000 {
		s.say(s.Listen, request("POST /_simulator/echo", []string{"Content-Length: 8000000", "Content-Length: 1000", "Transfer-Encoding: chunked"}[i%3]))
	}
	program.Await(s.T, "they are in flight", func() bool { return s.Metric("mimecast_proxy_requests_in_flight") >= 1000 })
	if n := s.Metric("mimecast_proxy_replay_buffer_bytes"); n > 1<<20 {
		t.Errorf("%.1f MiB are taken for bodies of which no byte has come", n/(1<<20))
	}
}
