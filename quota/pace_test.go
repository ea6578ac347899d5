package quota_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/account"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/quota"
)

func TestMain(m *testing.M) {
	suite.Parallel(8)
	goleak.VerifyTestMain(m)
}

const siem = "/siem/v1/events/cg"

// scenario has five heavy tools that together want three times the quota, and light ones
// that call occasionally.
type scenario struct {
	limit    int
	window   time.Duration
	latency  time.Duration
	jitter   time.Duration
	replicas int // of the proxy: each tool calls all of them
	windows  int
	wait     time.Duration
	sliding  bool
	path     string // the default is siem
	trace    quota.Trace
}

func (s scenario) String() string {
	return fmt.Sprintf("%d calls in %v, %d replicas, wait %v, latency %v to %v", s.limit, s.window, s.replicas, s.wait, 2*s.latency, 2*(s.latency+s.jitter))
}

// least returns the share of the quota that pacing must use. With jitter, a call may arrive
// too late for its window.
func (s scenario) least() float64 {
	if s.jitter > 0 {
		return 0.97
	}
	return 0.98
}

const heavyTools = 5

// way is how tools reach Mimecast: through a replica of a proxy and through the tool's own
// transport.
type way struct {
	name          string
	replica, tool func(http.RoundTripper) http.RoundTripper
}

func direct(next http.RoundTripper) http.RoundTripper { return next }

func (s scenario) ways() []way {
	proxy := func(pace quota.Pace) func(http.RoundTripper) http.RoundTripper {
		return func(next http.RoundTripper) http.RoundTripper {
			return quota.New(quota.Options{Wait: s.wait, Pace: pace, Trace: s.trace}).Wrap(next)
		}
	}
	tokenBucket := func(tools int) func(http.RoundTripper) http.RoundTripper {
		return func(next http.RoundTripper) http.RoundTripper {
			return &bucket{next: next, rate: s.window * time.Duration(tools*s.replicas) / time.Duration(s.limit), burst: max(1, s.limit/10/tools/s.replicas)}
		}
	}
	return []way{
		{"paced", proxy(quota.On), direct},
		{"the 429 queue alone", proxy(quota.Off), direct},
		{"none", direct, direct},
		{"a bucket in each tool", direct, tokenBucket(1)},
		{"a bucket with a fifth each", direct, tokenBucket(heavyTools)},
	}
}

// run returns the result of the scenario in one way.
func (s scenario) run(t *testing.T, w way) (r row) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{limit: s.limit, window: s.window, latency: s.latency, jitter: s.jitter, prefix: "X-RateLimit-", sliding: s.sliding}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(s.windows)*s.window+s.window/2)
		defer cancel()
		replicas := make([]http.RoundTripper, s.replicas)
		for i := range replicas {
			replicas[i] = w.replica(g)
		}
		heavy, light := s.drive(ctx, w, replicas)
		r = s.row(w.name, g, heavy, light)
	})
	return r
}

// drive has the tools send calls until ctx ends.
func (s scenario) drive(ctx context.Context, w way, replicas []http.RoundTripper) (heavy, light []*tool) {
	a := &account.Account{Name: "a", BaseURL: host}
	var wg sync.WaitGroup
	for i := range heavyTools {
		for j, replica := range replicas {
			c := &tool{name: fmt.Sprint("heavy-", i), next: w.tool(replica), account: a, path: cmp.Or(s.path, siem)}
			heavy = append(heavy, c)
			wg.Go(func() {
				if sleep(ctx, time.Duration(i*7+j*3)*time.Millisecond) == nil {
					c.want(ctx, &wg, s.window*time.Duration(heavyTools*s.replicas)/time.Duration(3*s.limit))
				}
			})
		}
	}
	// Each light tool calls once, at a different time of a window.
	for i := range 4 * s.windows {
		c := &tool{name: fmt.Sprint("light-", i), next: w.tool(replicas[i%len(replicas)]), account: a, path: cmp.Or(s.path, siem)}
		light = append(light, c)
		wg.Go(func() {
			if sleep(ctx, s.window/7+time.Duration(i)*s.window*255/1024) == nil {
				c.call(ctx)
			}
		})
	}
	wg.Wait()
	return heavy, light
}

// row summarizes the counts of the gateway and the tools.
func (s scenario) row(name string, g *gateway, heavy, light []*tool) row {
	r := row{name: name, sent: g.served + g.limited, limited: g.limited, fewest: g.served, windows: g.windows}
	for i := 0; i < len(heavy); i += s.replicas {
		n := 0
		for _, c := range heavy[i : i+s.replicas] {
			n += c.ok
			r.seen += c.limited
			r.rejected += c.rejected
			r.slowest = max(r.slowest, c.slowest)
		}
		r.fewest, r.most = min(r.fewest, n), max(r.most, n)
	}
	for _, c := range light {
		r.seen += c.limited
		if c.ok == 0 {
			r.light = max(r.light, s.window) // it got no response with 200
		}
		r.light = max(r.light, c.first-2*s.latency-2*s.jitter)
	}
	for _, n := range g.windows {
		r.used += float64(n) / float64(s.limit*len(g.windows))
	}
	return r
}

// compare runs the scenario in each way, logs the results, and returns the paced one.
func (s scenario) compare(t *testing.T) (paced row) {
	t.Helper()
	if testing.Short() && s.limit >= 1000 {
		t.Skip("takes too long for -short")
	}
	for i, w := range s.ways() {
		r := s.run(t, w)
		if i > 0 {
			t.Log(r)
			continue
		}
		paced = r
		t.Logf("\n%s", rowHead)
		t.Log(r, r.windows)
	}
	return paced
}

func TestQuotaIsSharedBeforeA429(t *testing.T) {
	t.Parallel()
	for _, s := range []scenario{
		{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, replicas: 1, windows: 8, wait: 30 * time.Second},
		{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, replicas: 1, windows: 8, wait: 5 * time.Second},
		{limit: 50, window: 15 * time.Minute, latency: 100 * time.Millisecond, replicas: 1, windows: 8, wait: 5 * time.Minute},
		{limit: 300, window: time.Hour, latency: 150 * time.Millisecond, replicas: 1, windows: 8, wait: 5 * time.Minute},
		{limit: 300, window: time.Hour, latency: 150 * time.Millisecond, replicas: 1, windows: 8, wait: 30 * time.Second},
		{limit: 1000, window: time.Minute, latency: 50 * time.Millisecond, replicas: 1, windows: 8, wait: 10 * time.Second},
		{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, jitter: 200 * time.Millisecond, replicas: 1, windows: 8, wait: 30 * time.Second},
		{limit: 300, window: time.Minute, latency: 20 * time.Millisecond, jitter: 200 * time.Millisecond, replicas: 1, windows: 8, wait: 30 * time.Second},
	} {
		t.Run(s.String(), func(t *testing.T) {
			r := s.compare(t)
			if r.limited != 0 || r.used < s.least() || r.light > 100*time.Millisecond || r.slowest > s.wait+2*s.latency+2*s.jitter+time.Second {
				t.Errorf("paced: %d responses with 429, %.1f %% used, a light tool waited %v, the slowest call took %v", r.limited, 100*r.used, r.light, r.slowest)
			}
			if r.most > r.fewest*5/4+2 {
				t.Errorf("the heavy tools had from %d to %d calls", r.fewest, r.most)
			}
		})
	}
}

func TestReplicasSeeEachOthersUse(t *testing.T) {
	t.Parallel()
	for _, s := range []scenario{
		{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, replicas: 3, windows: 8, wait: 30 * time.Second},
		{limit: 50, window: 15 * time.Minute, latency: 100 * time.Millisecond, replicas: 3, windows: 8, wait: 5 * time.Minute},
		{limit: 300, window: time.Hour, latency: 150 * time.Millisecond, replicas: 3, windows: 8, wait: 5 * time.Minute},
		{limit: 1000, window: time.Minute, latency: 50 * time.Millisecond, replicas: 3, windows: 8, wait: 10 * time.Second},
		{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, jitter: 200 * time.Millisecond, replicas: 3, windows: 8, wait: 30 * time.Second},
		{limit: 300, window: time.Minute, latency: 20 * time.Millisecond, jitter: 200 * time.Millisecond, replicas: 3, windows: 8, wait: 30 * time.Second},
	} {
		t.Run(s.String(), func(t *testing.T) {
			r := s.compare(t)
			if r.limited*50 > r.sent || r.used < 0.9 {
				t.Errorf("paced: %d of %d responses are 429, %.1f %% used", r.limited, r.sent, 100*r.used)
			}
		})
	}
}

func TestSlidingWindowIsNoStorm(t *testing.T) {
	s := scenario{limit: 60, window: time.Minute, latency: 20 * time.Millisecond, replicas: 1, windows: 8, wait: 30 * time.Second, sliding: true}
	t.Logf("\n%s", rowHead)
	var rows []row
	for _, w := range s.ways() {
		r := s.run(t, w)
		t.Log(r)
		rows = append(rows, r)
	}
	paced, none := rows[0], rows[2]
	if got := paced.sent - paced.limited; got*100 < (none.sent-none.limited)*75 {
		t.Errorf("%d calls were served, and %d without pacing", got, none.sent-none.limited)
	}
	if paced.limited > none.limited/2 {
		t.Errorf("%d responses are 429, and %d without pacing", paced.limited, none.limited)
	}
}
