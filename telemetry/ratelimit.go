package telemetry

import (
	"net/http"
	"strconv"
	"time"

	"mimecast-proxy/event"
)

// quota is what one answer said; a number that it did not say is unsaid.
type quota struct{ limit, remaining, reset float64 }

const unsaid = -1

// shown returns q as it is shown.
func (q quota) shown(at time.Time) *event.RateLimit {
	said := func(n float64) *float64 {
		if n == unsaid {
			return nil
		}
		return &n
	}
	return &event.RateLimit{Limit: said(q.limit), Remaining: said(q.remaining), ResetMS: said(q.reset), SeenAt: at}
}

// quotaHeaders are the spellings that are in use, as net/http writes them.
var quotaHeaders = [...]struct{ limit, remaining, reset string }{
	{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"},
	{"X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"},
	{"X-Mimecast-Ratelimit-Limit", "X-Mimecast-Ratelimit-Remaining", "X-Mimecast-Ratelimit-Reset"},
}

func readQuota(h http.Header) (quota, bool) {
	q := quota{unsaid, unsaid, unsaid}
	for _, name := range quotaHeaders {
		readCount(h[name.limit], &q.limit)
		readCount(h[name.remaining], &q.remaining)
		readCount(h[name.reset], &q.reset)
	}
	return q, q != quota{unsaid, unsaid, unsaid}
}

// maxDigits bounds what is believed to be a count.
const maxDigits = 15

// readCount sets to, unless it is set, to the value of a header that is a
// plain number and nothing else.
func readCount(values []string, to *float64) {
	if *to != unsaid || len(values) != 1 || len(values[0]) > maxDigits {
		return
	}
	if n, err := strconv.ParseUint(values[0], 10, 64); err == nil {
		*to = float64(n)
	}
}
