// Package problem is how the proxy says no: a status, a code, and a sentence
// for the client in Mimecast's own error envelope, so that a tool which
// understands Mimecast's errors understands these.
//
// Two headers tell an answer of the proxy's from one of Mimecast's:
// X-Mimecast-Proxy-Error with the code, and Proxy-Status (RFC 9209).
package problem

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"mimecast-proxy/event"
)

// Header names the header that every answer of the proxy's own bears, with the
// code as its value, and no answer of Mimecast's does.
const Header = "X-Mimecast-Proxy-Error"

// StatusHeader is the field of RFC 9209.
const StatusHeader = "Proxy-Status"

// Problem is an answer of the proxy's own, and an error on its way to become
// one.
type Problem struct {
	Code event.Code
	// Detail is for the client: what happened and what to do next.
	Detail string
	// RetryAfter says when to ask again. It is sent in whole seconds, rounded
	// up; 0 sends no header.
	RetryAfter time.Duration
	// Err is the cause, for the log alone. It may be nil.
	Err error
}

// New returns a problem with a detail that is formatted as by fmt.Sprintf.
func New(code event.Code, detail string, args ...any) *Problem {
	return &Problem{Code: code, Detail: fmt.Sprintf(detail, args...)}
}

// Because returns p with its cause set.
func (p *Problem) Because(err error) *Problem {
	p.Err = err
	return p
}

// Error is for the log: code, detail and cause, the latter without what the detail
// says already.
func (p *Problem) Error() string {
	text := fmt.Sprintf("%s: %s", p.Code, p.Detail)
	if p.Err == nil {
		return text
	}
	cause := p.Err.Error()
	if whole := strings.TrimSuffix(cause, "."); strings.Contains(p.Detail, whole) {
		return text
	}
	if inner := errors.Unwrap(p.Err); inner != nil {
		own, _ := strings.CutSuffix(cause, ": "+inner.Error())
		if strings.Contains(p.Detail, own) {
			cause = inner.Error()
		}
	}
	return text + ": " + cause
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// envelope is Mimecast's flat error envelope, as its gateway sends it.
type envelope struct {
	Fail []failure `json:"fail"`
}

type failure struct {
	Code      event.Code `json:"code"`
	Message   string     `json:"message"`
	Retryable bool       `json:"retryable"`
}

// ServeHTTP writes the answer. It sets the headers it needs and leaves others
// that were set before, such as WWW-Authenticate, as they are.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := p.Code.Kind()
	body, err := json.Marshal(envelope{Fail: []failure{{p.Code, p.Detail, k.Retry.Allows(r.Method)}}})
	if err != nil { // strings and a bool always marshal
		panic(err)
	}
	body = append(body, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(Header, string(p.Code))
	h.Set(StatusHeader, "mimecast-proxy; error="+k.ErrorType)
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	w.WriteHeader(cmp.Or(k.Status, http.StatusInternalServerError))
	if r.Method != http.MethodHead {
		// A client that is gone is no news here: the access log tells it.
		_, _ = w.Write(body)
	}
}
