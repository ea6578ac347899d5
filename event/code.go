// Package event has the types that say what happened to a request or to a token.
// Packages that do not know each other report and read by them.
package event

import "net/http"

// Code says what went wrong, for programs. The set is closed: each code is in the
// table of this package.
type Code string

// The codes of the proxy's own error responses.
const (
	BadRequestTarget Code = "bad_request_target"
	BadRequestBody   Code = "bad_request_body"
	// BadRequest is for what net/http rejects by itself: bytes that are not HTTP.
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
	// ClientGone is for log and metrics alone: nobody is left to read the response.
	ClientGone Code = "client_gone"
)

// Retry says whether a client may send the same request again.
type Retry int

// The retry rules.
const (
	RetryNever Retry = iota
	RetryAlways
	// RetryReads is for what Mimecast may have carried out: only a request that
	// changes nothing may be sent again.
	RetryReads
)

// Allows reports whether a request with that method may be sent again.
func (r Retry) Allows(method string) bool {
	reads := method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
	return r == RetryAlways || r == RetryReads && reads
}

// Kind is what a code means.
type Kind struct {
	// Status is the HTTP status of the response.
	Status int
	Retry  Retry
	// ErrorType is the error type of RFC 9209, section 2.3.
	ErrorType string
}

var kinds = map[Code]Kind{
	BadRequestTarget:    {http.StatusBadRequest, RetryNever, "http_request_error"},
	BadRequestBody:      {http.StatusBadRequest, RetryNever, "http_request_error"},
	BadRequest:          {http.StatusBadRequest, RetryNever, "http_request_error"},
	HeadersTooLarge:     {http.StatusRequestHeaderFieldsTooLarge, RetryNever, "http_request_error"},
	APIKeyRequired:      {http.StatusUnauthorized, RetryNever, "http_request_denied"},
	HostNotAllowed:      {http.StatusForbidden, RetryNever, "http_request_denied"},
	OriginNotAllowed:    {http.StatusForbidden, RetryNever, "http_request_denied"},
	RouteNotAllowed:     {http.StatusForbidden, RetryNever, "http_request_denied"},
	UpgradeNotSupported: {http.StatusNotImplemented, RetryNever, "http_upgrade_failed"},
	UpstreamUnreachable: {http.StatusBadGateway, RetryAlways, "destination_unavailable"},
	UpstreamTLS:         {http.StatusBadGateway, RetryNever, "tls_protocol_error"},
	UpstreamReset:       {http.StatusBadGateway, RetryReads, "connection_terminated"},
	CredentialsRefused:  {http.StatusBadGateway, RetryNever, "proxy_configuration_error"},
	TokenUnavailable:    {http.StatusServiceUnavailable, RetryAlways, "destination_unavailable"},
	TooBusy:             {http.StatusServiceUnavailable, RetryAlways, "connection_limit_reached"},
	ShuttingDown:        {http.StatusServiceUnavailable, RetryReads, "proxy_internal_response"},
	UpstreamTimeout:     {http.StatusGatewayTimeout, RetryReads, "http_response_timeout"},
	ClientGone:          {499, RetryNever, "http_request_error"},
}

// Kind returns what the code means; an internal error for a code that is not in
// the table.
func (c Code) Kind() Kind {
	if k, ok := kinds[c]; ok {
		return k
	}
	return Kind{Status: http.StatusInternalServerError, ErrorType: "proxy_internal_error"}
}

// Status returns the HTTP status of the code's response.
func (c Code) Status() int { return c.Kind().Status }
