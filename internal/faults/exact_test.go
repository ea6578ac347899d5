package faults_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/relay"
	"mimecast-proxy/internal/traffic"
	"mimecast-proxy/simulator"
)

var (
	runs = flag.Int("runs", 300, "how many randomised runs TestNoWriteIsEverExecutedTwice makes; the figure in the docs is of 20000")
	seed = flag.Uint64("seed", 0, "what TestNoWriteIsEverExecutedTwice makes its runs up from; 0 takes a new one")
)

// mishap is a random failure.
type mishap struct {
	fault *simulator.Fault // at Mimecast
	net   *relay.Fault     // in the network
	do    relay.Action     // on all connections, after a pause
	after time.Duration
	drop  bool // revoke the tokens
	leave time.Duration
}

// String describes the mishap for the output of a failed run.
func (m mishap) String() string {
	return fmt.Sprintf("Mimecast %+v, network %+v, strike %q after %v, revoked %v, client leaves after %v", m.fault, m.net, m.do, m.after, m.drop, m.leave)
}

// draw returns a random mishap. Most that break a connection do so at a random byte.
func draw(r *rand.Rand) (m mishap) {
	actions := []relay.Action{relay.Reset, relay.Close}
	switch r.IntN(16) {
	case 0, 1:
		m.net = &relay.Fault{Direction: relay.Up, After: r.Int64N(60_000), Do: actions[r.IntN(2)], Count: 1}
	case 2, 3:
		m.net = &relay.Fault{Direction: relay.Down, After: r.Int64N(1500), Do: actions[r.IntN(2)], Count: 1}
	case 4:
		m.do, m.after = actions[r.IntN(2)], time.Duration(r.Int64N(int64(4*time.Millisecond)))
	case 5:
		m.leave = time.Duration(r.Int64N(int64(4 * time.Millisecond)))
	case 6, 7, 8, 9, 10:
		m.fault = drawFault(r)
	default: // none, but mishaps of concurrent writes may affect it
	}
	m.drop = r.IntN(1000) == 0
	return m
}

func drawFault(r *rand.Rand) *simulator.Fault {
	cuts := []simulator.Cut{simulator.CutRequest, simulator.CutAnswer, simulator.CutHeader, simulator.CutBody, simulator.CutShort}
	reset := map[string]string{"X-RateLimit-Reset": fmt.Sprint(1 + r.IntN(30))}
	all := []simulator.Fault{
		{Status: 401, Code: "token_expired"}, {Status: 401, Early: true}, {Status: 429, Header: reset}, {Status: 429, Header: reset, Early: true},
		{Status: 503}, {Status: 500, Early: true}, {Status: 413, Early: true}, {Delay: time.Duration(r.IntN(3)) * time.Millisecond},
		{Cut: cuts[r.IntN(len(cuts))], CutAfter: r.Int64N(100)}, {Cut: cuts[r.IntN(len(cuts))], CutAfter: r.Int64N(100)},
		{Header: map[string]string{"Connection": "close"}},
	}
	f := all[r.IntN(len(all))]
	f.Count = 1 + r.IntN(3)
	return &f
}

// suffer makes one write while the mishap happens.
func (m mishap) suffer(w *world, c *traffic.Client, kind string, r *rand.Rand) traffic.Result {
	if m.drop {
		w.sim.RevokeTokens()
	}
	if m.fault != nil {
		defer w.sim.RemoveFault(w.sim.AddFault(*m.fault))
	}
	if m.net != nil {
		w.relay.Set(*m.net)
		defer w.relay.Clear()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if m.leave > 0 {
		defer time.AfterFunc(m.leave, cancel).Stop()
	}
	if m.do != "" {
		defer time.AfterFunc(m.after, func() { w.relay.Inject(m.do) }).Stop()
	}
	return c.Do(ctx, kind, r)
}

func TestNoWriteIsEverExecutedTwice(t *testing.T) {
	t.Parallel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("%d runs; to have them again: go test ./internal/faults -run %s -runs %d -seed %d", *runs, t.Name(), *runs, *seed)
	for name, http1 := range map[string]bool{"HTTP/2": false, "HTTP/1.1": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simulator.Options{HTTP1Only: http1, HeldMessages: 1 << 30, RequestLog: 16, TokenTTL: time.Second})
			p := w.serve(t, "PROXY_REPLAY_LIMIT=64KiB", "PROXY_RATE_LIMIT_WAIT=500ms", "PROXY_RESPONSE_TIMEOUT=20s")
			c := &traffic.Client{URL: p.URL, Sim: w.sim, MaxBody: 128 << 10, HTTP: p.Client}
			outcomes := exercise(w, c, *runs/2)
			program.Await(t, "the end of all requests", func() bool { return p.Metric("mimecast_proxy_requests_in_flight") == 0 && w.quiet() })
			a := c.Settle()
			t.Logf("%d writes: %v; %d without a word on whether they ran, of which %d did", a.Writes, outcomes, a.Unknown, a.Done)
			if len(a.Doubled)+len(a.Lost)+len(a.Denied) > 0 {
				t.Errorf("doubled %v\nlost %v\ncarried out, though the answer denied it: %v", a.Doubled, a.Lost, a.Denied)
			}
			if outcomes["wrong"] > 0 {
				t.Error("wrong answers")
			}
			w.relay.Clear()
			if a := p.whoami(); a.status != 200 && a.status != 401 { // a token that was just revoked is kept for 10 s
				t.Errorf("at the end: %v", a)
			}
		})
	}
}

// quiet reports whether Mimecast has no request in flight.
func (w *world) quiet() bool {
	for _, r := range w.sim.Requests() {
		if !r.Done {
			return false
		}
	}
	return true
}

// exercise makes n writes, several of them concurrently, because a mishap of one write may
// affect others.
func exercise(w *world, c *traffic.Client, n int) map[string]int {
	outcomes := map[string]int{}
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				r := rand.New(rand.NewPCG(*seed, uint64(i)))
				kinds := traffic.Writes()
				got := draw(r).suffer(w, c, kinds[r.IntN(len(kinds))], r)
				mu.Lock()
				outcomes[got.Outcome()]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return outcomes
}
