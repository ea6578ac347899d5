package quota_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// limited responds to the first requests with 429 and a reset, and then echoes. It counts
// requests that came before the reset.
type limited struct {
	header, reset string
	after         time.Duration
	mu            sync.Mutex
	left          int
	until         time.Time
	early, most   int
	underWay      int
}

func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	if time.Now().Before(l.until) && r.Header.Get("X-Again") == "" {
		l.early++
	}
	l.underWay++
	l.most = max(l.most, l.underWay)
	limit := l.left > 0
	if limit {
		l.left--
		l.until = time.Now().Add(l.after)
	}
	l.mu.Unlock()
	defer func() { l.mu.Lock(); l.underWay--; l.mu.Unlock() }()
	if limit {
		w.Header().Set(l.header, l.reset)
		w.WriteHeader(429)
		fmt.Fprint(w, "limited")
		return
	}
	echo(w, r)
}

func TestLimitedRequestIsHeldUntilTheReset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header, reset string
		after         time.Duration
	}{{"X-RateLimit-Reset", "150", 150 * time.Millisecond}, {"X-Rate-Limit-Reset", "150", 150 * time.Millisecond}, {"Retry-After", "1", time.Second}} {
		if testing.Short() && c.after >= time.Second {
			continue // Retry-After has whole seconds only
		}
		l := &limited{header: c.header, reset: c.reset, after: c.after, left: 2}
		r := newRig(t, setup{wait: time.Minute}, l.ServeHTTP)
		if res, body := r.do("POST", "/", strings.NewReader("sent")); res.StatusCode != 200 || body != "sent" || l.early != 0 {
			t.Errorf("%s: %d %q, %d early", c.header, res.StatusCode, body, l.early)
		}
		r.heldAs("recovered")
	}
}

func TestLimitPassesWhereWaitingIsNoUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, header, reset string
		wait                time.Duration
		left, size          int
		outcome             string
	}{
		{"waiting is off", "X-RateLimit-Reset", "1", 0, 1, 1, ""},
		{"too far away", "X-RateLimit-Reset", "60000", time.Second, 1, 1, "too_long"},
		{"no reset named", "X-Nothing", "1", time.Second, 1, 1, "too_long"},
		{"still limited when time is up", "X-RateLimit-Reset", "700", 2 * time.Second, 1000, 1, "still_limited"},
		{"body gone", "X-RateLimit-Reset", "10", time.Minute, 1, 100_000, "not_replayable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &limited{header: c.header, reset: c.reset, left: c.left}
			r := newRig(t, setup{wait: c.wait, limit: 1000}, func(w http.ResponseWriter, req *http.Request) {
				if c.size > 1 {
					_, _ = io.Copy(io.Discard, req.Body)
				}
				l.ServeHTTP(w, req)
			})
			res, body := r.do("POST", "/", strings.NewReader(strings.Repeat("x", c.size)))
			if res.StatusCode != 429 || body != "limited" || res.Header.Get(c.header) != c.reset {
				t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
			}
			if c.outcome != "" {
				r.heldAs(c.outcome)
			}
		})
	}
}

func TestHeldRequestWhoseTokenDiedMeanwhileIsSentWithAnother(t *testing.T) {
	l := &limited{header: "X-RateLimit-Reset", reset: "10", left: 1}
	r := newRig(t, setup{wait: time.Minute}, func(w http.ResponseWriter, req *http.Request) {
		l.mu.Lock()
		over := l.left == 0
		l.mu.Unlock()
		if over {
			rejecting(echo)(w, req)
			return
		}
		l.ServeHTTP(w, req)
	})
	if res, body := r.do("POST", "/", strings.NewReader("sent")); res.StatusCode != 200 || body != "sent" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	r.saw("recovered")
}

// together serves the first n requests with first, once all of them have arrived, and the
// others with then.
func together(n int64, first, then http.HandlerFunc) http.HandlerFunc {
	var came atomic.Int64
	all := make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		i := came.Add(1)
		if i == n {
			close(all)
		}
		if i > n {
			then(w, r)
			return
		}
		<-all
		first(w, r)
	}
}

func TestHeldRequestsGoOneAfterTheOther(t *testing.T) {
	t.Parallel()
	const n = 30
	l := &limited{header: "X-RateLimit-Reset", reset: "200"}
	r := newRig(t, setup{wait: time.Minute}, together(n, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set(l.header, l.reset)
		w.WriteHeader(429)
	}, l.ServeHTTP))
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if res, _ := r.do("GET", "/", nil); res.StatusCode != 200 {
				t.Errorf("%d", res.StatusCode)
			}
		})
	}
	wg.Wait()
	if l.most != 1 {
		t.Errorf("%d at once", l.most)
	}
}

func TestHeldRequestEndsWithItsClient(t *testing.T) {
	asked := make(chan bool, 1)
	r := newRig(t, setup{wait: time.Hour}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3000")
		w.WriteHeader(429)
		asked <- true
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	req, err := http.NewRequestWithContext(ctx, "GET", r.front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.Do(req); err == nil {
		t.Error("answered")
	}
	r.front.Close() // waits for the handler, which must end with its client
}

func (r *rig) heldAs(outcome string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fmt.Sprint(r.holds) != "["+outcome+"]" {
		r.t.Errorf("held: %v, want %s", r.holds, outcome)
	}
}
