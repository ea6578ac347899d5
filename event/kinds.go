package event

import "net/http"

// kinds is the table of codes. A new code is a constant and one row here: error
// responses, log, metrics, page, README.md and docs/operations.md are made from it.
// Summary and Remedy together have at most 140 characters.
var kinds = [...]Kind{
	{BadRequestTarget, http.StatusBadRequest, RetryNever, "http_request_error", ComponentClient, true, "The request target is not a plain path", "Use the proxy's address as base URL, not as HTTP proxy. Send no .. or // in paths."},
	{BadRequestBody, http.StatusBadRequest, RetryNever, "http_request_error", ComponentClient, false, "The request body ended early or is malformed", "See the client's own log."},
	{BadRequest, http.StatusBadRequest, RetryNever, "http_request_error", ComponentClient, true, "Not valid HTTP", "Escape spaces and percent signs in the path and query, and send one Host header."},
	{APIKeyRequired, http.StatusUnauthorized, RetryNever, "http_request_denied", ComponentClient, true, "No key that the proxy accepts", "Give the client the key in PROXY_API_KEY, or one of its keys in PROXY_CLIENTS_FILE."},
	{HostNotAllowed, http.StatusForbidden, RetryNever, "http_request_denied", ComponentClient, true, "The Host header has a name that is not allowed", "Add the name to PROXY_ALLOWED_HOSTS, or call the proxy by its address."},
	{OriginNotAllowed, http.StatusForbidden, RetryNever, "http_request_denied", ComponentClient, true, "Sent by a web page of another origin", "If the page may use the account, add its origin to PROXY_ALLOWED_ORIGINS."},
	{RouteNotAllowed, http.StatusForbidden, RetryNever, "http_request_denied", ComponentClient, true, "The route is not allowed", "If the client needs the route, add it to PROXY_ALLOW, or to its allow in PROXY_CLIENTS_FILE."},
	{BatchURLInvalid, http.StatusForbidden, RetryNever, "http_request_denied", ComponentClient, true, "The proxy did not make this batch URL, or the client secret has changed since", "Request the list of batch files again."},
	{TunnelNotAllowed, http.StatusForbidden, RetryNever, "http_request_denied", ComponentClient, true, "The forward proxy does not connect to this host and port", "Send only HTTPS through it; if callers have a password, only to Mimecast."},
	{ProxyAuthRequired, http.StatusProxyAuthRequired, RetryNever, "http_request_denied", ComponentClient, true, "The forward proxy's password is missing or wrong", "Give the client the whole URL of the proxy, password included."},
	{MisdirectedRequest, http.StatusMisdirectedRequest, RetryNever, "http_request_error", ComponentClient, true, "The Host header differs from the name of the tunnel", "Send requests for each host through a separate connection."},
	{HeadersTooLarge, http.StatusRequestHeaderFieldsTooLarge, RetryNever, "http_request_error", ComponentClient, true, "The request headers are too many or too large", "Send fewer, or raise PROXY_MAX_HEADER_FIELDS and PROXY_MAX_HEADER_BYTES."},
	{ClientGone, 499, RetryNever, "http_request_error", ComponentClient, false, "The client disconnected before the response", "If its timeout is shorter than Mimecast takes, raise it."},
	{UpgradeNotSupported, http.StatusNotImplemented, RetryNever, "http_upgrade_failed", ComponentClient, true, "The client asked for a protocol upgrade, which Mimecast does not have", "Turn off WebSockets and upgrades in the client."},
	{UpstreamUnreachable, http.StatusBadGateway, RetryAlways, "destination_unavailable", ComponentMimecast, false, "Mimecast cannot be reached", "Check this machine's network, DNS and firewall. Behind a corporate proxy, set HTTPS_PROXY."},
	{TunnelFailed, http.StatusBadGateway, RetryAlways, "destination_unavailable", ComponentClient, false, "The forward proxy cannot reach the host", "Check the name and this machine's network. Behind a corporate proxy, set HTTPS_PROXY."},
	{UpstreamTLS, http.StatusBadGateway, RetryNever, "tls_protocol_error", ComponentMimecast, false, "No trusted TLS connection to Mimecast can be made", "If TLS is inspected here, set MIMECAST_CA_FILE to the root certificate. Check the clock."},
	{UpstreamReset, http.StatusBadGateway, RetryReads, "connection_terminated", ComponentMimecast, false, "Mimecast closed the connection before it responded", "Before you resend a write, check whether it was done. See Mimecast's service status."},
	{CredentialsRefused, http.StatusBadGateway, RetryNever, "proxy_configuration_error", ComponentCredentials, false, "Mimecast rejects the client ID or the secret", "Compare MIMECAST_CLIENT_ID and MIMECAST_CLIENT_SECRET with Mimecast's Administration Console."},
	{TokenUnavailable, http.StatusServiceUnavailable, RetryAlways, "destination_unavailable", ComponentMimecast, false, "The token endpoint issues no token", "The proxy keeps trying. See the last token error, and Mimecast's service status."},
	{TooBusy, http.StatusServiceUnavailable, RetryAlways, "connection_limit_reached", ComponentProxy, true, "The proxy, the client or its account is at a limit", "See whether Mimecast is slow or a client sends too many. The response names the limit."},
	{ShuttingDown, http.StatusServiceUnavailable, RetryReads, "proxy_internal_response", ComponentProxy, false, "The proxy is shutting down", "It accepts requests again after a restart."},
	{UpstreamTimeout, http.StatusGatewayTimeout, RetryReads, "http_response_timeout", ComponentMimecast, false, "Mimecast did not respond in time", "See Mimecast's service status. PROXY_RESPONSE_TIMEOUT sets how long the proxy waits."},

	{RequestRefused, 0, RetryNever, "", ComponentClient, false, "Rejected as wrong (4xx)", "See the status and body that the client got."},
	{MimecastUnauthorized, 0, RetryNever, "", ComponentCredentials, false, "Mimecast rejects the token (401), and renewal did not help", "Check that the API application is enabled and MIMECAST_REGION is its region."},
	{MimecastForbidden, 0, RetryNever, "", ComponentCredentials, false, "The API application lacks the role or product for this path (403)", "Add the role. A product needs a new application: none can be added later."},
	{MimecastRateLimited, 0, RetryNever, "", ComponentMimecast, false, "Mimecast's quota for this function is used up (429)", "Send fewer requests, or set PROXY_RATE_LIMIT_WAIT to let the proxy wait for the reset."},
	{MimecastError, 0, RetryNever, "", ComponentMimecast, false, "Mimecast responded with a server error (5xx)", "See Mimecast's service status. If it lasts, give their support the request ID."},
	{MimecastTruncated, 0, RetryNever, "", ComponentMimecast, false, "Mimecast's response ended early", "See Mimecast's service status, and check what ends long connections on the way."},
	{Panic, 0, RetryNever, "", ComponentProxy, false, "The proxy failed with an internal error", "This is a bug: report it with the line of the log that has the stack."},
	{Other, 0, RetryNever, "proxy_internal_error", ComponentProxy, false, "The proxy failed", "See the request's line in the log."},
}

// Count is how many codes there are.
const Count = len(kinds)
