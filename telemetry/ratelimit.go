package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"mimecast-proxy/event"
)

// quota is what one response stated; notStated for a number that it did not.
type quota struct{ limit, remaining, reset float64 }

const notStated = -1

// rateLimit returns q for the status page.
func (q quota) rateLimit(at time.Time) *event.RateLimit {
	stated := func(n float64) *float64 {
		if n == notStated {
			return nil
		}
		return &n
	}
	return &event.RateLimit{Limit: stated(q.limit), Remaining: stated(q.remaining), ResetMS: stated(q.reset), SeenAt: at}
}

// quotaHeaders are the spellings that are in use, as net/http writes them.
var quotaHeaders = [...]struct{ limit, remaining, reset string }{
	{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"},
	{"X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"},
	{"X-Mimecast-Ratelimit-Limit", "X-Mimecast-Ratelimit-Remaining", "X-Mimecast-Ratelimit-Reset"},
}

func readQuota(h http.Header) (quota, bool) {
	q := quota{notStated, notStated, notStated}
	for _, name := range quotaHeaders {
		readCount(h[name.limit], &q.limit)
		readCount(h[name.remaining], &q.remaining)
		readCount(h[name.reset], &q.reset)
	}
	return q, q != quota{notStated, notStated, notStated}
}

// maxDigits bounds what is believed to be a count.
const maxDigits = 15

// readCount sets to, unless it is set, to the value of a header that is a
// plain number and nothing else.
func readCount(values []string, to *float64) {
	if *to != notStated || len(values) != 1 || len(values[0]) > maxDigits {
		return
	}
	if n, err := strconv.ParseUint(values[0], 10, 64); err == nil {
		*to = float64(n)
	}
}
