package mimecast

import (
	"net/http"
	"strconv"
)

// NotStated is the value of a number that a response does not state.
const NotStated = -1

// Quota is what one response states about the quota of its function: three numbers of at
// most 15 digits, or [NotStated].
type Quota struct {
	// Limit is the number of calls in a window; Remaining is how many are left.
	Limit, Remaining int64
	// ResetMS is the number of milliseconds until the quota resets.
	ResetMS int64
}

// quotaHeaders are the spellings that are in use, as net/http writes them.
var quotaHeaders = [...]struct{ limit, remaining, reset string }{
	{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset"},
	{"X-Rate-Limit-Limit", "X-Rate-Limit-Remaining", "X-Rate-Limit-Reset"},
	{"X-Mimecast-Ratelimit-Limit", "X-Mimecast-Ratelimit-Remaining", "X-Mimecast-Ratelimit-Reset"},
}

// ReadQuota returns what a response states about a quota, and whether it states anything.
// A value that is not a plain number, or that is there twice, is not read.
func ReadQuota(h http.Header) (Quota, bool) {
	q := Quota{NotStated, NotStated, NotStated}
	for _, name := range quotaHeaders {
		readCount(h[name.limit], &q.Limit)
		readCount(h[name.remaining], &q.Remaining)
		readCount(h[name.reset], &q.ResetMS)
	}
	return q, q != Quota{NotStated, NotStated, NotStated}
}

// maxDigits bounds what is believed to be a count.
const maxDigits = 15

// readCount sets to, unless it is set, to the value of a header that is a plain number
// and nothing else.
func readCount(values []string, to *int64) {
	if *to != NotStated || len(values) != 1 || len(values[0]) > maxDigits {
		return
	}
	if n, err := strconv.ParseUint(values[0], 10, 63); err == nil {
		*to = int64(n) //nolint:gosec // 15 digits fit
	}
}
