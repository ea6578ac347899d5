// Package mimecast has the facts about Mimecast's API: regions and hosts, the token
// endpoint, error codes, rate-limit headers, route presets and products.
package mimecast

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"mimecast-proxy/event"
)

// Code returns the error code in a body, in any of the envelopes that the
// gateway is known to send: fail[].code, fail[].errors[].code, or OAuth's
// error (RFC 6749, section 5.2). It is empty if there is none. It is the peer's text:
// check it before it is printed.
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
	_ = json.Unmarshal(answer.Error, &code) // an object here is no code
	for _, f := range answer.Fail {
		code = cmp.Or(code, f.Code)
		for _, e := range f.Errors {
			code = cmp.Or(code, e.Code)
		}
	}
	return code
}

// IsTokenCode reports whether an error code says that the token is the cause: it
// has expired, or cannot be verified.
func IsTokenCode(code string) bool {
	reason := event.UnauthorizedReason(code)
	return reason == event.ReasonTokenExpired || reason == event.ReasonTokenVerification
}

// LongestWait is the longest wait that a response can ask for.
const LongestWait = time.Hour

// resetHeaders are the spellings of the reset header, in milliseconds until a
// call is added back.
var resetHeaders = []string{"X-Ratelimit-Reset", "X-Rate-Limit-Reset", "X-Mimecast-Ratelimit-Reset"}

// RetryAfter returns how long a response asks a client to wait: Retry-After in seconds or
// as a date (RFC 9110, section 10.2.3), else Mimecast's reset. It is 0 if there is
// neither, and at most [LongestWait].
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
