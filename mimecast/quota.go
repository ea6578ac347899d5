package mimecast

import (
	"net/http"
	"strconv"
)

// NotStated is the value of a number that a response does not contain.
const NotStated = -1

// Quota is what one response states about the quota of its function. Each number has at
// most 15 digits or is [NotStated].
type Quota struct {
	// Limit is the number of calls per window. Remaining is how many of them are left.
	Limit, Remaining int64
	// ResetMS is the time until the quota resets, in milliseconds.
	ResetMS int64
}

// quotaHeaders are the known spellings, in net/http's canonical form.
var quotaHeaders = [...]struct{ limit, remaining, reset string }{
	{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"},
	{"X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"},
	{"X-Mimecast-Ratelimit-Limit", "X-Mimecast-Ratelimit-Remaining", "X-Mimecast-Ratelimit-Reset"},
}

// ReadQuota returns what a response states about a quota, and whether it states
// anything. It ignores values that are not plain numbers, and repeated headers.
func ReadQuota(h http.Header) (Quota, bool) {
	q := Quota{NotStated, NotStated, NotStated}
	for _, name := range quotaHeaders {
		readCount(h[name.limit], &q.Limit)
		readCount(h[name.remaining], &q.Remaining)
		readCount(h[name.reset], &q.ResetMS)
	}
	return q, q != Quota{NotStated, NotStated, NotStated}
}

// maxDigits is the maximum length of a number. Longer ones are not plausible.
const maxDigits = 15

// readCount sets to from a header with one plain number, unless to is already set.
func readCount(values []string, to *int64) {
	if *to != NotStated || len(values) != 1 || len(values[0]) > maxDigits {
		return
	}
	if n, err := strconv.ParseUint(values[0], 10, 63); err == nil {
		*to = int64(n) //nolint:gosec // 15 digits fit
	}
}
