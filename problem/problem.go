// Package problem is how the proxy says no: a status, a code, and a sentence
// for the client in Mimecast's own error envelope, so that a tool which
// understands Mimecast's errors understands these.
//
// Two headers tell an answer of the proxy's from one of Mimecast's:
// X-Mimecast-Proxy-Error with the code, and Proxy-Status (RFC 9209).
package problem

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Header names the header that every answer of the proxy's own bears, with the
// code as its value, and no answer of Mimecast's does.
const Header = "X-Mimecast-Proxy-Error"

// StatusHeader is the field of RFC 9209.
const StatusHeader = "Proxy-Status"

// Code says what went wrong, for programs. The set is closed: each is in the
// table of this package, with its status.
type Code string

// The codes.
const (
	BadRequestTarget Code = "bad_request_target"
	BadRequestBody   Code = "bad_request_body"
	// BadRequest is for what net/http rejects by itself: bytes that are no HTTP.
	BadRequest          Code = "bad_request"
	HeadersTooLarge     Code = "headers_too_large"
	APIKeyRequired      Code = "api_key_required"
	HostNotAllowed      Code = "host_not_allowed"
	OriginNotAllowed    Code = "origin_not_allowed"
	RouteNotAllowed     Code = "route_not_allowed"
	UpgradeNotSupported Code = "upgrade_not_supported"
	UpstreamUnreachable Code = "upstream_unreachable"
	UpstreamTLS         Code = "upstream_tls"
	UpstreamReset       Code = "upstream_reset"
	CredentialsRefused  Code = "credentials_refused"
	TokenUnavailable    Code = "token_unavailable"
	TooBusy             Code = "too_busy"
	ShuttingDown        Code = "shutting_down"
	UpstreamTimeout     Code = "upstream_timeout"
	// ClientGone is for the log alone: nobody is left to read the answer.
	ClientGone Code = "client_gone"
)

// retry says whether the same request may be sent again.
type retry int

const (
	never retry = iota
	always
	// ifReading is for what may have been carried out: only a request that
	// changes nothing may be sent again.
	ifReading
)

// kind is what a code means in HTTP.
type kind struct {
	status int
	retry  retry
	// proxyStatus is the error type of RFC 9209, section 2.3.
	proxyStatus string
}

var kinds = map[Code]kind{
	BadRequestTarget:    {http.StatusBadRequest, never, "http_request_error"},
	BadRequestBody:      {http.StatusBadRequest, never, "http_request_error"},
	BadRequest:          {http.StatusBadRequest, never, "http_request_error"},
	HeadersTooLarge:     {http.StatusRequestHeaderFieldsTooLarge, never, "http_request_error"},
	APIKeyRequired:      {http.StatusUnauthorized, never, "http_request_denied"},
	HostNotAllowed:      {http.StatusForbidden, never, "http_request_denied"},
	OriginNotAllowed:    {http.StatusForbidden, never, "http_request_denied"},
	RouteNotAllowed:     {http.StatusForbidden, never, "http_request_denied"},
	UpgradeNotSupported: {http.StatusNotImplemented, never, "http_upgrade_failed"},
	UpstreamUnreachable: {http.StatusBadGateway, always, "destination_unavailable"},
	UpstreamTLS:         {http.StatusBadGateway, never, "tls_protocol_error"},
	UpstreamReset:       {http.StatusBadGateway, ifReading, "connection_terminated"},
	CredentialsRefused:  {http.StatusBadGateway, never, "proxy_configuration_error"},
	TokenUnavailable:    {http.StatusServiceUnavailable, always, "destination_unavailable"},
	TooBusy:             {http.StatusServiceUnavailable, always, "connection_limit_reached"},
	ShuttingDown:        {http.StatusServiceUnavailable, ifReading, "proxy_internal_response"},
	UpstreamTimeout:     {http.StatusGatewayTimeout, ifReading, "http_response_timeout"},
	ClientGone:          {499, never, "http_request_error"},
}

func (r retry) allows(method string) bool {
	reads := method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
	return r == always || r == ifReading && reads
}

// Status returns the HTTP status that goes with the code; 500 for a code that
// is not in the table.
func (c Code) Status() int {
	if k, ok := kinds[c]; ok {
		return k.status
	}
	return http.StatusInternalServerError
}

// Problem is an answer of the proxy's own, and an error on its way to become
// one.
type Problem struct {
	Code Code
	// Detail is for the client: what happened and what to do next.
	Detail string
	// RetryAfter says when to ask again. It is sent in whole seconds, rounded
	// up; 0 sends no header.
	RetryAfter time.Duration
	// Err is the cause, for the log alone. It may be nil.
	Err error
}

// New returns a problem with a detail that is formatted as by fmt.Sprintf.
func New(code Code, detail string, args ...any) *Problem {
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
	Code      Code   `json:"code"`
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// ServeHTTP writes the answer. It sets the headers it needs and leaves others
// that were set before, such as WWW-Authenticate, as they are.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := kinds[p.Code]
	body, err := json.Marshal(envelope{Fail: []failure{{p.Code, p.Detail, k.retry.allows(r.Method)}}})
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
	h.Set(StatusHeader, "mimecast-proxy; error="+k.proxyStatus)
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	w.WriteHeader(p.Code.Status())
	if r.Method != http.MethodHead {
		// A client that is gone is no news here: the access log tells it.
		_, _ = w.Write(body)
	}
}
