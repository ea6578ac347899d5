// Package mimecast has facts about Mimecast's API: regions and hosts, the token
// endpoint, error codes, rate limit headers, route presets and products.
package mimecast

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"mimecast-proxy/event"
)

// Code returns the error code in a response body; empty if there is none. It knows the
// envelopes that the gateway sends: fail[].code, fail[].errors[].code, and OAuth's
// error (RFC 6749, section 5.2). The code comes from the peer: check it before you
// print it.
func Code(body []byte) string {
	var answer struct {
		Error json.RawMessage `json:"error"`
		Fail  []struct {
			Code   string `json:"code"`
			Errors []struct {
				Code string `json:"code"`
			} `json:"errors"`
		} `json:"fail"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	var code string
	_ = json.Unmarshal(answer.Error, &code) // an object is not a code
	for _, f := range answer.Fail {
		code = cmp.Or(code, f.Code)
		for _, e := range f.Errors {
			code = cmp.Or(code, e.Code)
		}
	}
	return code
}

// IsTokenCode reports whether an error code means that the token has expired or cannot
// be verified.
func IsTokenCode(code string) bool {
	reason := event.UnauthorizedReason(code)
	return reason == event.ReasonTokenExpired || reason == event.ReasonTokenVerification
}

// LongestWait is the longest wait that [RetryAfter] returns.
const LongestWait = time.Hour

// resetHeaders are the spellings of the reset header, which has the milliseconds until
// one more call is allowed.
var resetHeaders = []string{"X-Ratelimit-Reset", "X-Rate-Limit-Reset", "X-Mimecast-Ratelimit-Reset"}

// RetryAfter returns how long a response asks the client to wait, at most
// [LongestWait]. It reads Retry-After in seconds or as a date (RFC 9110, section
// 10.2.3), else Mimecast's reset header. It returns 0 if there is neither.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	if v := h.Get("Retry-After"); v != "" {
		if seconds, err := strconv.Atoi(v); err == nil {
			return bounded(seconds, time.Second)
		}
		if at, err := http.ParseTime(v); err == nil {
			return min(max(at.Sub(now), 0), LongestWait)
		}
	}
	for _, name := range resetHeaders {
		if ms, err := strconv.Atoi(h.Get(name)); err == nil {
			return bounded(ms, time.Millisecond)
		}
	}
	return 0
}

func bounded(n int, unit time.Duration) time.Duration {
	return time.Duration(min(max(n, 0), int(LongestWait/unit))) * unit
}
