package quota_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/problem"
)

// gateway is Mimecast's gateway, in memory. Its quota applies to a sliding window, or to
// fixed windows that each begin with a call.
type gateway struct {
	limit   int
	window  time.Duration
	latency time.Duration // in each direction
	jitter  time.Duration // maximum addition to latency
	sliding bool
	prefix  string // of the quota headers; empty means no headers

	mu      sync.Mutex
	began   time.Time
	calls   []time.Time // in the current window
	windows []int       // number of calls in each past window
	served  int
	limited int
}

func (g *gateway) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := sleep(req.Context(), g.delay()); err != nil {
		return nil, err
	}
	res := g.serve()
	res.Request = req
	return res, sleep(req.Context(), g.delay())
}

func (g *gateway) delay() time.Duration { return g.latency + rand.N(g.jitter+1) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gateway) serve() *http.Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	reset := g.turn(now)
	status := 200
	if len(g.calls) < g.limit {
		g.calls = append(g.calls, now)
		g.served++
	} else {
		status = 429
		g.limited++
	}
	h := http.Header{}
	if g.prefix != "" {
		h.Set(g.prefix+"Limit", strconv.Itoa(g.limit))
		h.Set(g.prefix+"Remaining", strconv.Itoa(g.limit-len(g.calls)))
		h.Set(g.prefix+"Reset", strconv.FormatInt((reset+time.Millisecond-1).Milliseconds(), 10))
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(""))}
}

// turn drops expired calls or windows and returns the time until the reset.
func (g *gateway) turn(now time.Time) time.Duration {
	if g.sliding {
		for len(g.calls) > 0 && now.Sub(g.calls[0]) >= g.window {
			g.calls = g.calls[1:]
		}
		if len(g.calls) == 0 {
			return g.window
		}
		return g.window - now.Sub(g.calls[0])
	}
	if g.began.IsZero() || now.Sub(g.began) >= g.window {
		if !g.began.IsZero() {
			g.windows = append(g.windows, len(g.calls))
		}
		g.began, g.calls = now, nil
	}
	return g.window - now.Sub(g.began)
}

// tool is a client that calls one function.
type tool struct {
	name    string
	next    http.RoundTripper
	account *account.Account
	path    string

	mu       sync.Mutex
	ok       int
	limited  int
	rejected int
	slowest  time.Duration // of all calls that were not rejected
	first    time.Duration // duration of the first call
	calls    int
}

var host = &url.URL{Scheme: "https", Host: "mimecast.example"}

// call makes one call and returns how long the response asks the tool to wait.
func (c *tool) call(ctx context.Context) (wait time.Duration) {
	ctx = account.NewContext(ctx, c.account, c.name)
	req, err := http.NewRequestWithContext(ctx, "GET", "https://mimecast.example", nil)
	if err != nil {
		panic(err)
	}
	req.URL = &url.URL{Scheme: "https", Host: host.Host, Opaque: c.path}
	began := time.Now()
	res, err := c.next.RoundTrip(req)
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls++; c.calls == 1 {
		c.first = took
	}
	p := new(problem.Problem)
	switch {
	case errors.As(err, &p):
		c.rejected++
		return p.RetryAfter
	case err != nil:
		return 0
	case res.StatusCode == 503:
		c.rejected++
		s, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return time.Duration(s) * time.Second
	case res.StatusCode == 429:
		c.limited++
		ms, _ := strconv.Atoi(res.Header.Get("X-RateLimit-Reset"))
		wait = time.Duration(ms) * time.Millisecond
	default:
		c.ok++
	}
	c.slowest = max(c.slowest, took)
	return wait
}

// want calls at a steady rate until ctx ends, with several workers that obey Retry-After.
func (c *tool) want(ctx context.Context, wg *sync.WaitGroup, every time.Duration) {
	const workers = 4
	for i := range workers {
		wg.Go(func() {
			if sleep(ctx, every*time.Duration(i)) != nil {
				return
			}
			for ctx.Err() == nil {
				began := time.Now()
				wait := c.call(ctx)
				if sleep(ctx, max(wait, workers*every-time.Since(began))) != nil {
					return
				}
			}
		})
	}
}

// bucket is a careful client's limiter: a token bucket at the documented rate, which does
// not know about other clients. It passes burst calls at once.
type bucket struct {
	next  http.RoundTripper
	rate  time.Duration // time per token
	burst int

	mu sync.Mutex
	at time.Time // the time when the bucket is full
}

func (b *bucket) RoundTrip(req *http.Request) (*http.Response, error) {
	b.mu.Lock()
	now := time.Now()
	if b.at.Before(now) {
		b.at = now
	}
	b.at = b.at.Add(b.rate)
	wait := b.at.Sub(now) - time.Duration(b.burst)*b.rate
	b.mu.Unlock()
	if err := sleep(req.Context(), max(wait, 0)); err != nil {
		return nil, err
	}
	return b.next.RoundTrip(req)
}

// row is one line of the comparison.
type row struct {
	name string
	// sent counts the requests that reached Mimecast, and limited those that got 429. seen
	// counts the 429s that reached a tool. rejected counts the 503s.
	sent, limited, seen, rejected int
	// used is the share of the quota that was used in past windows.
	used           float64
	windows        []int
	light, slowest time.Duration // longest first call of a light tool, and longest call of any
	fewest, most   int           // fewest and most calls served for a heavy tool
}

const rowHead = "                                 sent    429             seen  rejected   used   light waits   slowest  fewest  most"

func (r row) String() string {
	return fmt.Sprintf("%-28s %6d %6d (%4.1f %%) %6d %8d %6.1f %% %11v %9v %6d %6d", r.name, r.sent, r.limited, 100*float64(r.limited)/float64(max(r.sent, 1)),
		r.seen, r.rejected, 100*r.used, r.light.Round(time.Millisecond), r.slowest.Round(100*time.Millisecond), r.fewest, r.most)
}
