package simulator

import (
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Quota is how many calls to a function are allowed in a fixed window.
type Quota struct {
	Calls  int           // allowed calls per window
	Window time.Duration // length of the window
}

// documentedQuotas are the only quotas that Mimecast publishes. A path that ends in "/"
// stands for each function under it, with a separate quota each. Functions without a quota
// were observed to send no rate-limit headers.
var documentedQuotas = map[string]Quota{
	"/siem/v1/batch/events/": {50, 15 * time.Minute},
	"/siem/v1/events/":       {300, time.Hour},
}

// DefaultRateLimitHeader is the prefix of the quota headers' names.
// Other spellings are in use: X-Rate-Limit-, X-Mimecast-RateLimit-.
const DefaultRateLimitHeader = "X-RateLimit-"

// limiter counts calls in fixed windows, per function and application.
type limiter struct {
	mu      sync.Mutex
	prefix  string
	quotas  map[string]Quota
	windows map[string]*window
}

type window struct {
	began time.Time
	calls int
}

func (l *limiter) init(quotas map[string]Quota) {
	l.prefix, l.quotas, l.windows = DefaultRateLimitHeader, maps.Clone(quotas), map[string]*window{}
}

// SetQuota allows calls per window to the function at path. A path that ends in "/" stands
// for each function under it. With 0 calls, it removes the limit. It resets all counts.
func (s *Simulator) SetQuota(path string, calls int, per time.Duration) {
	l := &s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.windows)
	if calls <= 0 {
		delete(l.quotas, path)
		return
	}
	l.quotas[path] = Quota{calls, per}
}

// SetRateLimitHeader sets the prefix of the rate-limit headers' names, for example
// [DefaultRateLimitHeader].
func (s *Simulator) SetRateLimitHeader(prefix string) {
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.limits.prefix = prefix
}

// takeCall uses one call and sets the quota headers in h; the reset is in milliseconds. It
// reports whether a call was left.
func (l *limiter) takeCall(h http.Header, path, app string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	q, ok := l.quota(path)
	if !ok {
		return true
	}
	w := l.windows[app+" "+path]
	if w == nil || now.Sub(w.began) >= q.Window || now.Before(w.began) {
		l.deleteExpired(now)
		w = &window{began: now}
		l.windows[app+" "+path] = w
	}
	allowed := w.calls < q.Calls
	if allowed {
		w.calls++
	}
	reset := q.Window - now.Sub(w.began) + time.Millisecond - 1 // round up, so that a client that waits this long is not early
	h.Set(l.prefix+"Limit", strconv.Itoa(q.Calls))
	h.Set(l.prefix+"Remaining", strconv.Itoa(q.Calls-w.calls))
	h.Set(l.prefix+"Reset", strconv.FormatInt(reset.Milliseconds(), 10))
	return allowed
}

// deleteExpired limits the number of windows, because clients can make up paths.
func (l *limiter) deleteExpired(now time.Time) {
	if len(l.windows) < 1000 {
		return
	}
	oldest := now.Add(-24 * time.Hour)
	for _, q := range l.quotas {
		if t := now.Add(-q.Window); t.Before(oldest) {
			oldest = t
		}
	}
	maps.DeleteFunc(l.windows, func(_ string, w *window) bool { return !w.began.After(oldest) })
}

func (l *limiter) quota(path string) (Quota, bool) {
	if q, ok := l.quotas[path]; ok {
		return q, true
	}
	q, ok := l.quotas[path[:strings.LastIndexByte(path, '/')+1]]
	return q, ok
}
