// Package problem writes the proxy's own error responses: a status, a code and a
// sentence. They use Mimecast's error envelope, which Mimecast's clients understand.
// Package event defines the codes.
//
// Two headers distinguish them from Mimecast's responses: X-Mimecast-Proxy-Error with
// the code, and Proxy-Status (RFC 9209).
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
// it. No response from Mimecast does.
const Header = "X-Mimecast-Proxy-Error"

// StatusHeader is the name of the Proxy-Status header (RFC 9209).
const StatusHeader = "Proxy-Status"

// Problem is an error response of the proxy. It is used as an error until it is sent.
type Problem struct {
	Code event.Code
	// Detail is the message for the client: what happened and what to do next.
	Detail string
	// RetryAfter is the time until the client should resend the request. It is sent in
	// whole seconds, rounded up. 0 sends no header.
	RetryAfter time.Duration
	// Limit is the setting whose limit the request exceeds. It may be empty.
	Limit string
	// LimitOwner is the owner of that limit; empty if it is the proxy's.
	// ComponentClient stands for a limit of one client or its account, which other
	// clients do not notice. ComponentMimecast stands for a quota.
	LimitOwner event.Component
	// Err is the cause, for the log only. It may be nil.
	Err error
}

// New returns a problem with a detail formatted as by fmt.Sprintf.
func New(code event.Code, detail string, args ...any) *Problem {
	return &Problem{Code: code, Detail: fmt.Sprintf(detail, args...)}
}

// Because sets the cause and returns p.
func (p *Problem) Because(err error) *Problem {
	p.Err = err
	return p
}

// Error returns the text for the log: code, detail and cause. It omits the parts of the
// cause that the detail already contains.
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

// envelope is Mimecast's flat error envelope, as Mimecast's gateway sends it.
type envelope struct {
	Fail []failure `json:"fail"`
}

type failure struct {
	Code      event.Code `json:"code"`
	Message   string     `json:"message"`
	Retryable bool       `json:"retryable"`
}

// ServeHTTP writes the response. It sets its own headers and keeps others that were set
// before, such as WWW-Authenticate. It writes no body for HEAD.
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
		// The client may have disconnected. The access log records that.
		_, _ = w.Write(body)
	}
}
