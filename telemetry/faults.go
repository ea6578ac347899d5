package telemetry

import (
	"net/http"
	"strings"
)

// The culprits: where to look for the cause of a request that did not do what
// it was meant to. They are the four that an operator chooses among.
const (
	Tool     = "tool"     // whoever called the proxy
	Proxy    = "proxy"    // this program
	Token    = "token"    // the credentials, or the token endpoint
	Mimecast = "mimecast" // the API, or the way to it
)

// fault is a way in which a request can go wrong. The set is closed, so that
// faults can be counted in arrays and be labels.
type fault struct {
	code    string
	culprit string
	// denial marks what the guard refuses before anything is sent on.
	denial bool
	// advice says what it means and what to do, where nobody else says so: an
	// answer of Mimecast's goes to the client as it is.
	advice string
}

// explanation is what is said of a fault that nobody else explains; nothing
// where the status says it all.
func (f fault) explanation() string {
	if f.advice == "" {
		return ""
	}
	return f.code + ": " + f.advice
}

// Faults that are not told by a problem code.
const (
	faultNone = iota
	faultOther
	faultPanic
	faultClientGone
	faultShuttingDown
	faultRefused
	faultUnauthorized
	faultForbidden
	faultRateLimited
	faultUpstreamError
	faultTruncated
	faultNamed // the first of those that are
)

// faults is indexed by the numbers above. Those from faultNamed on are problem
// codes of the proxy's own answers.
var faults = [...]fault{
	faultNone:          {},
	faultOther:         {code: "other", culprit: Proxy},
	faultPanic:         {code: "panic", culprit: Proxy},
	faultClientGone:    {code: "client_gone", culprit: Tool},
	faultShuttingDown:  {code: "shutting_down", culprit: Proxy},
	faultRefused:       {code: "request_refused", culprit: Tool},
	faultUnauthorized:  {code: "mimecast_unauthorized", culprit: Token, advice: "Mimecast answered 401, and a new token did not help or could not be had; if this lasts, give Mimecast's support its request id"},
	faultForbidden:     {code: "mimecast_forbidden", culprit: Mimecast, advice: "the token is good, but the API application lacks the role or the product for this path; products cannot be added later, so create an application that has them"},
	faultRateLimited:   {code: "mimecast_rate_limited", culprit: Mimecast, advice: "Mimecast's quota for this function is spent; ask less often, or set PROXY_RATE_LIMIT_WAIT"},
	faultUpstreamError: {code: "mimecast_error", culprit: Mimecast, advice: "Mimecast itself failed; if this lasts, give its support its request id"},
	faultTruncated:     {code: "mimecast_truncated", culprit: Mimecast, advice: "Mimecast's answer broke off, and so did the tool's"},

	faultNamed: {code: "bad_request_target", culprit: Tool, denial: true, advice: "give the tool the address of the proxy as base URL, not as HTTP proxy, and send no .. or // in paths"},
	{code: "bad_request", culprit: Tool, denial: true, advice: "the request is not valid HTTP: escape spaces and percent signs in the path and query"},
	{code: "headers_too_large", culprit: Tool, denial: true, advice: "the request has more or larger headers than PROXY_MAX_HEADER_FIELDS and PROXY_MAX_HEADER_BYTES allow"},
	{code: "api_key_required", culprit: Tool, denial: true, advice: "send the key in PROXY_API_KEY"},
	{code: "host_not_allowed", culprit: Tool, denial: true, advice: "add the name that the proxy was called by to PROXY_ALLOWED_HOSTS"},
	{code: "origin_not_allowed", culprit: Tool, denial: true, advice: "a web page called; add its origin to PROXY_ALLOWED_ORIGINS if you mean it"},
	{code: "route_not_allowed", culprit: Tool, denial: true, advice: "add the route to PROXY_ALLOW if you mean it"},
	{code: "upgrade_not_supported", culprit: Tool, denial: true, advice: "Mimecast has no WebSockets"},
	{code: "too_busy", culprit: Proxy, denial: true, advice: "PROXY_MAX_REQUESTS are in flight; see whether Mimecast is slow or a tool asks too much"},
	{code: "bad_request_body", culprit: Tool},
	{code: "upstream_unreachable", culprit: Mimecast},
	{code: "upstream_tls", culprit: Mimecast},
	{code: "upstream_reset", culprit: Mimecast},
	{code: "upstream_timeout", culprit: Mimecast},
	{code: "credentials_refused", culprit: Token},
	{code: "token_unavailable", culprit: Token},
}

// faultOf returns the fault that a code names; faultOther for an unknown one.
func faultOf(code string) int {
	for i := faultOther; i < len(faults); i++ {
		if faults[i].code == code {
			return i
		}
	}
	return faultOther
}

// codeOf returns the problem code that an error's text begins with, and nothing
// where it begins otherwise.
func codeOf(text string) string {
	code, _, _ := strings.Cut(text, ":")
	if i := faultOf(code); faults[i].code == code {
		return code
	}
	return ""
}

// judge returns what went wrong with a request that ended as told.
func (o *outcome) judge() int {
	switch {
	case o.panicked:
		return faultPanic
	case o.code != "":
		return faultOf(o.code)
	case o.denied != "" && !o.passed:
		return faultOf(o.denied)
	case o.aborted == byClient:
		return faultClientGone
	case o.aborted == byUpstream:
		return faultTruncated
	case o.aborted == byProxy:
		return faultShuttingDown
	case o.answers > 0:
		return judgeStatus(o.status)
	case o.status >= http.StatusInternalServerError:
		return faultOther
	case o.status >= http.StatusBadRequest:
		return faultRefused
	}
	return faultNone
}

// judgeStatus judges an answer of Mimecast's.
func judgeStatus(status int) int {
	switch {
	case status < http.StatusBadRequest:
		return faultNone
	case status == http.StatusUnauthorized:
		return faultUnauthorized
	case status == http.StatusForbidden:
		return faultForbidden
	case status == http.StatusTooManyRequests:
		return faultRateLimited
	case status >= http.StatusInternalServerError:
		return faultUpstreamError
	default:
		return faultRefused
	}
}
