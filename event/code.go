// Package event has the types that say what happened to a request or to a token:
// codes, outcomes, and the plain structs of the status page. Packages that do not know
// each other report and read by them.
//
// Each set of values is closed, and listed here once. The rest of the program reads the
// lists: error responses, the log, metrics, the status page and the documentation.
package event

import (
	"net/http"
	"slices"
)

// Code says what went wrong with a request, for programs. Each code is a row of the
// table in kinds.go.
type Code string

// The codes of the proxy's own error responses.
const (
	BadRequestTarget Code = "bad_request_target"
	BadRequestBody   Code = "bad_request_body"
	// BadRequest is for what net/http rejects before a handler sees it: bytes that are
	// not HTTP.
	BadRequest          Code = "bad_request"
	HeadersTooLarge     Code = "headers_too_large"
	APIKeyRequired      Code = "api_key_required"
	HostNotAllowed      Code = "host_not_allowed"
	OriginNotAllowed    Code = "origin_not_allowed"
	TunnelNotAllowed    Code = "tunnel_not_allowed"
	ProxyAuthRequired   Code = "proxy_auth_required"
	MisdirectedRequest  Code = "misdirected_request"
	TunnelFailed        Code = "tunnel_failed"
	RouteNotAllowed     Code = "route_not_allowed"
	BatchURLInvalid     Code = "batch_url_invalid"
	UpgradeNotSupported Code = "upgrade_not_supported"
	UpstreamUnreachable Code = "upstream_unreachable"
	UpstreamTLS         Code = "upstream_tls"
	UpstreamReset       Code = "upstream_reset"
	CredentialsRefused  Code = "credentials_refused"
	TokenUnavailable    Code = "token_unavailable"
	TooBusy             Code = "too_busy"
	ShuttingDown        Code = "shutting_down"
	UpstreamTimeout     Code = "upstream_timeout"
)

// The codes of what goes wrong without such a response. Log, metrics and page use them.
const (
	// ClientGone has a status for the log only: the client has gone.
	ClientGone Code = "client_gone"
	// RequestRefused is any other 4xx, from Mimecast or from the proxy.
	RequestRefused       Code = "request_refused"
	MimecastUnauthorized Code = "mimecast_unauthorized"
	MimecastForbidden    Code = "mimecast_forbidden"
	MimecastRateLimited  Code = "mimecast_rate_limited"
	MimecastError        Code = "mimecast_error"
	MimecastTruncated    Code = "mimecast_truncated"
	Panic                Code = "panic"
	// Other is for what has no code. An unknown code counts as this one.
	Other Code = "other"
)

// Component is where to look for the cause.
type Component string

// The components.
const (
	ComponentClient      Component = "client"
	ComponentProxy       Component = "proxy"       // this program
	ComponentCredentials Component = "credentials" // client ID and secret, and what the API application may do
	ComponentMimecast    Component = "mimecast"    // the API, or the network on the way to it
)

// Components lists all of them.
var Components = []Component{ComponentClient, ComponentProxy, ComponentCredentials, ComponentMimecast}

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
	Code Code
	// Status is the HTTP status of the proxy's own response; 0 if there is none.
	Status int
	Retry  Retry
	// ErrorType is the error type of RFC 9209, section 2.3, for the proxy's own
	// response.
	ErrorType string
	Component Component
	// Rejection marks what is rejected before anything is sent to Mimecast.
	Rejection bool
	// Summary is what happened: one clause without a full stop. Remedy is what to do:
	// one or more sentences.
	Summary, Remedy string
}

// Kinds returns the table.
func Kinds() []Kind { return slices.Clone(kinds[:]) }

// index has the rows of the table by code.
var index = func() map[Code]int {
	rows := make(map[Code]int, len(kinds))
	for i, k := range kinds {
		rows[k.Code] = i
	}
	return rows
}()

// Index returns the code's row in the table, from 0 to [Count]-1; that of Other for an
// unknown code.
func (c Code) Index() int {
	if i, ok := index[c]; ok {
		return i
	}
	return index[Other]
}

// Kind returns what the code means; that of Other for an unknown code.
func (c Code) Kind() Kind { return kinds[c.Index()] }

// KindOf returns what the code means if component is where to look: too_busy may be due to
// a limit of the client or to Mimecast's quota.
func (c Code) KindOf(component Component) Kind {
	k := c.Kind()
	if c != TooBusy || component == "" {
		return k
	}
	if k.Component = component; component == ComponentMimecast {
		k.Summary, k.Remedy = "Mimecast's quota for this function is in use", "Send fewer requests, or raise PROXY_RATE_LIMIT_WAIT."
	}
	return k
}

// Status returns the HTTP status of the code's response.
func (c Code) Status() int { return c.Kind().Status }

// Rejected reports whether the kind is of a request that was rejected because of the
// client. Such requests do not show how others fare.
func (k Kind) Rejected() bool { return k.Rejection && k.Component == ComponentClient }

// Explanation is the code with its summary and remedy, in one line.
func (k Kind) Explanation() string { return string(k.Code) + ": " + k.Summary + ". " + k.Remedy }

// Unprocessed reports whether Mimecast certainly did not carry out a request with this
// code. That is not so for ClientGone: a client can leave while Mimecast works.
func (k Kind) Unprocessed() bool {
	return k.Status != 0 && k.Retry != RetryReads && k.Code != ClientGone
}

// oneOf returns a value from outside as one of a closed set; other if it is in none.
func oneOf[T ~string](value string, set []T, other T) T {
	if v := T(value); slices.Contains(set, v) {
		return v
	}
	return other
}
