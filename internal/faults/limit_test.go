package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const limited = "/api/account/get-account"

var limitRows = []row{
	{"429, waiting is off", untouched, "`rate_limit_remaining` 0", "at Mimecast's reset", limitPasses, ""},
	{"429, waiting is on", "200, after Mimecast's reset and never sooner", "`rate_limit_waits_total{outcome=\"recovered\"}`", "at the reset", limitHeld, ""},
	{"429 with a reset later than `PROXY_RATE_LIMIT_WAIT` allows", untouched + ", at once", "`rate_limit_waits_total{outcome=\"too_long\"}`", "at the reset", limitTooFar, ""},
	{"429 without a reset", untouched + ", at once", "`rate_limit_waits_total{outcome=\"too_long\"}`", "when Mimecast allows calls again", limitWithoutReset, ""},
	{"429 again and again", untouched + ", after `PROXY_RATE_LIMIT_WAIT`", "`rate_limit_waits_total{outcome=\"still_limited\"}`", "when Mimecast allows calls again", limitAgain, ""},
	{"429 for a body that was not kept", untouched, "`rate_limit_waits_total{outcome=\"not_replayable\"}`", "at the reset", limitOfBodyNotKept, ""},
	{"429 for more than 64 requests of a client at once", "64 requests wait, the rest get 429 at once", "`rate_limit_waits_total{outcome=\"too_long\"}`", "at the reset", limitBeyondPlaces, ""},
	{"429 for many requests at once", "200 for all, one at a time in order of arrival", "`rate_limit_waits_total{outcome=\"recovered\"}`", "at the reset", limitCrowd, ""},
	{"429, and the client disconnects", gone + "; the proxy does not resend it", "`rate_limit_waits_total{outcome=\"abandoned\"}`", "at once", limitAbandoned, ""},
	{"429 for a write", "200; carried out once", "`rate_limit_waits_total{outcome=\"recovered\"}`", "at the reset", limitedWrites, ""},
}

func limitPasses(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t)
	w.sim.SetQuota(limited, 1, time.Hour)
	p.says(p.post(limited, ""), 200, "")
	a := p.post(limited, "")
	p.says(a, http.StatusTooManyRequests, "")
	if a.header.Get("X-RateLimit-Reset") == "" || !strings.Contains(a.body, "too_many_requests") {
		t.Errorf("%v", a)
	}
	if n := p.Metric("mimecast_proxy_rate_limit_remaining"); n != 0 {
		t.Errorf("%v calls remain", n)
	}
}

// limitHeld checks each spelling of the reset header.
func limitHeld(t *testing.T) {
	suite.Slow(t)
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1m")
	for _, h := range []struct {
		name, value string
		wait        time.Duration
	}{
		{"X-RateLimit-Reset", "700", 700 * time.Millisecond}, {"X-Rate-Limit-Reset", "700", 700 * time.Millisecond},
		{"Retry-After", "1", time.Second}, {"Retry-After", "", 0},
	} {
		var date time.Time
		if h.value == "" {
			date = time.Now().Add(3 * time.Second).Truncate(time.Second)
			h.value = date.UTC().Format(http.TimeFormat)
		}
		w.sim.Reset()
		w.sim.AddFault(simulator.Fault{Path: limited, Status: 429, Header: map[string]string{h.name: h.value}, Count: 1})
		p.says(p.post(limited, ""), 200, "")
		rs := w.sim.Requests()
		if len(rs) != 2 || rs[1].Time.Sub(rs[0].Time) < h.wait || rs[1].Time.Before(date) {
			t.Errorf("%s: sent again after %v", h.name, rs[len(rs)-1].Time.Sub(rs[0].Time))
		}
	}
	p.counts(`rate_limit_waits_total{outcome="recovered"}`, 4)
}

func limitTooFar(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=30s")
	w.sim.SetQuota(limited, 1, time.Hour)
	p.says(p.post(limited, ""), 200, "")
	began := time.Now()
	p.says(p.post(limited, ""), http.StatusTooManyRequests, "")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("after %v", took)
	}
	p.counts(`rate_limit_waits_total{outcome="too_long"}`, 1)
}

// limitEnds makes a request that gets 429 from a proxy that waits, and checks how the wait
// ends. Only still_limited means that the request was sent again.
func limitEnds(t *testing.T, wait, reset, body, outcome string, environ ...string) {
	t.Helper()
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, append(environ, "PROXY_RATE_LIMIT_WAIT="+wait)...)
	f := simulator.Fault{Path: limited, Status: http.StatusTooManyRequests}
	if reset != "" {
		f.Header = map[string]string{"X-RateLimit-Reset": reset}
	}
	w.sim.AddFault(f)
	a := p.post(limited, body)
	p.says(a, http.StatusTooManyRequests, "")
	if got := a.header.Get("X-RateLimit-Reset"); got != reset {
		t.Errorf("the reset is %q, not %q", got, reset)
	}
	p.counts(`rate_limit_waits_total{outcome="`+outcome+`"}`, 1)
	if n := w.sim.Counts().Statuses[http.StatusTooManyRequests]; n == 0 || (n > 1) != (outcome == "still_limited") {
		t.Errorf("%s: it was sent %d times", outcome, n)
	}
	w.sim.ClearFaults()
	p.isOKSoon(p.Watcher())
}

func limitWithoutReset(t *testing.T) { limitEnds(t, "1m", "", "", "too_long") }

func limitAgain(t *testing.T) { limitEnds(t, "2s", "300", "", "still_limited") }

func limitOfBodyNotKept(t *testing.T) {
	limitEnds(t, "1m", "10", strings.Repeat("x", 2000), "not_replayable", "PROXY_REPLAY_LIMIT=1KiB")
}

// limitBeyondPlaces has more requests get 429 at once than may wait for one client.
func limitBeyondPlaces(t *testing.T) {
	suite.Slow(t)
	const n, places = 80, 64
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1m")
	together := make(chan struct{})
	w.sim.AddFault(simulator.Fault{Path: limited, Status: http.StatusTooManyRequests, Header: map[string]string{"X-RateLimit-Reset": "3000"}, Until: together, Count: n})
	var rejected atomic.Int64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if a := p.post(limited, ""); a.status == http.StatusTooManyRequests {
				rejected.Add(1)
			} else {
				p.says(a, 200, "")
			}
		})
	}
	program.Await(t, "all of them at Mimecast", func() bool { return len(w.api()) == n })
	close(together)
	all.Wait()
	if got := rejected.Load(); got != n-places {
		t.Errorf("%d got 429, want %d", got, n-places)
	}
	p.counts(`rate_limit_waits_total{outcome="too_long"}`, n-places)
	p.isOKSoon(p.Watcher())
}

// limitCrowd has many more requests waiting than one window allows. At each reset, they
// must be sent one at a time and not all at once.
func limitCrowd(t *testing.T) {
	suite.Slow(t)
	const n, quota = 40, 8
	w := newWorld(t, simulator.Options{RequestLog: 1000})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1m")
	w.sim.SetQuota("/_simulator/echo", quota, 500*time.Millisecond)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if a := p.post(fmt.Sprintf("/_simulator/echo?n=%d", i), ""); a.status != 200 || a.err != nil {
				t.Errorf("%v", a)
			}
		})
	}
	all.Wait()
	// Each request outside the first window got 429 once. After that, only the first in
	// line finds out that the window is full again.
	refused := w.sim.Counts().Statuses[429]
	if most := n - quota + 2*n/quota; refused > most {
		t.Errorf("%d answers of 429 for %d requests, want at most %d", refused, n, most)
	}
	t.Logf("%d answers of 429", refused)
}

func limitAbandoned(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1h")
	w.sim.AddFault(simulator.Fault{Path: "/identity/", Status: 429, Header: map[string]string{"Retry-After": "600", "X-RateLimit-Limit": "7", "X-RateLimit-Remaining": "0"}})
	ctx, cancel := context.WithCancel(t.Context())
	var answered atomic.Bool
	left := make(chan struct{})
	go func() { defer close(left); answered.Store(p.do(ctx, "GET", "/identity/whoami", nil).err == nil) }()
	p.counts("rate_limit_limit", 7)
	cancel()
	<-left
	p.counts(`rate_limit_waits_total{outcome="abandoned"}`, 1)
	w.idle(p)
	if answered.Load() || w.sim.Counts().Statuses[429] != 1 {
		t.Error("it was answered, or sent again")
	}
}

func limitedWrites(t *testing.T) {
	w := newWorld(t, simulator.Options{})
	p := w.serve(t, "PROXY_RATE_LIMIT_WAIT=1m")
	w.sim.SetQuota("/api/gateway/hold-release", 5, 300*time.Millisecond)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { p.says(w.release(p, i), 200, "") })
	}
	all.Wait()
	for i := range 20 {
		if n := w.released(i); n != 1 {
			t.Errorf("carried out %d times", n)
		}
	}
}
