// Package problem writes the proxy's own error responses: a status, a code, and a sentence
// for the client in Mimecast's error envelope, which its clients understand. What a code
// means is in package event.
//
// Two headers distinguish them from Mimecast's responses: X-Mimecast-Proxy-Error with the
// code, and Proxy-Status (RFC 9209).
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

// Header is the name of the header with the code. Every error response of the proxy has
// it, and no response from Mimecast does.
const Header = "X-Mimecast-Proxy-Error"

// StatusHeader is the field of RFC 9209.
const StatusHeader = "Proxy-Status"

// Problem is an error response of the proxy, and an error until it is sent.
type Problem struct {
	Code event.Code
	// Detail is for the client: what happened and what to do next.
	Detail string
	// RetryAfter is when to resend the request. It is sent in whole seconds, rounded
	// up; 0 sends no header.
	RetryAfter time.Duration
	// Limit names the setting whose limit the request exceeds; it may be empty.
	Limit string
	// LimitOwner is whose limit that is, if it is not the proxy's: ComponentClient for that
	// of a client or its account, which no other client notices, ComponentMimecast for a
	// quota.
	LimitOwner event.Component
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

// ServeHTTP writes the response. It sets the headers that it needs and keeps others that
// were set before, such as WWW-Authenticate.
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
		// The client may be gone: the access log says so.
		_, _ = w.Write(body)
	}
}
