package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// Explain says what an error on the way to the upstream means, and what to do about
// it. It is for errors of lookups and dials as well.
func Explain(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	code, detail := classify(err)
	return problem.New(code, "%s", detail).Because(err)
}

// unknownOutcome ends the details of errors after which it is unknown what
// Mimecast did.
const unknownOutcome = "It may have carried the request out."

// classify decides by the type of an error and by how far the request had come.
func classify(err error) (event.Code, string) {
	if detail := classifyCertificate(err); detail != "" {
		return event.UpstreamTLS, detail
	}
	reached := written
	failed, ofAttempt := errors.AsType[*attemptError](err)
	if ofAttempt {
		reached = failed.phase
	}
	// Otherwise the error is of a lookup or a dial alone.
	if detail := classifyDial(err); detail != "" && (reached != written || !ofAttempt) {
		return event.UpstreamUnreachable, detail
	}
	switch {
	case reached != written && errors.Is(err, errConnectionsRejected):
		return event.UpstreamUnreachable, "Mimecast closed each new connection before a request was sent. Resend the request later."
	case reached == connecting:
		return event.UpstreamUnreachable, unreachable
	case reached == handshake && isTimeout(err):
		return event.UpstreamUnreachable, "The connection to Mimecast opened, but the TLS handshake got no response. Check the firewall; behind a corporate proxy, set HTTPS_PROXY."
	case reached == handshake && isConnectionEnd(err):
		return event.UpstreamUnreachable, "The connection to Mimecast was closed during the TLS handshake. Check the firewall; behind a corporate proxy, set HTTPS_PROXY."
	case reached == handshake:
		return event.UpstreamTLS, handshakeFailed
	case reached == connected:
		return event.UpstreamUnreachable, "The connection to Mimecast ended before the request was sent. Resend it."
	case isTimeout(err):
		return event.UpstreamTimeout, "Mimecast did not respond in time. " + unknownOutcome
	}
	return event.UpstreamReset, "The connection to Mimecast ended before a usable response arrived. " + unknownOutcome
}

// Details that several errors share.
const (
	unreachable     = "Mimecast cannot be reached. Check this machine's network and firewall; behind a corporate proxy, set HTTPS_PROXY."
	handshakeFailed = "The TLS handshake with Mimecast failed. Check whether a firewall or corporate proxy inspects TLS."
)

// isConnectionEnd reports whether the peer, or the network, ended a connection.
func isConnectionEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// classifyDial returns what to do if an error's type shows why no connection was made;
// empty for another error.
func classifyDial(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "The proxy has no file descriptor left for a connection to Mimecast. Raise its limit (ulimit -n), or lower PROXY_MAX_REQUESTS."
	}
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "proxyconnect" {
		return "The corporate proxy in HTTPS_PROXY cannot be reached. Check its name and port; if there is none, unset HTTPS_PROXY."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "Mimecast's name cannot be resolved. Check this machine's DNS and MIMECAST_BASE_URL."
	}
	if isOp && op.Op == "dial" {
		return unreachable
	}
	if refused, ok := errors.AsType[*refusedByProxy](err); ok {
		return refused.advice()
	}
	return ""
}

// refusedByProxy says that the corporate proxy rejected CONNECT to the upstream.
type refusedByProxy struct {
	status int
	// signedIn says that it was given a user and password; basic that it takes
	// them; others that it offers other ways to sign in.
	signedIn, basic, others bool
}

func (e *refusedByProxy) Error() string {
	return fmt.Sprintf("the corporate proxy responded to CONNECT with status %d", e.status)
}

func (e *refusedByProxy) advice() string {
	switch {
	case e.status != http.StatusProxyAuthRequired:
		return fmt.Sprintf("The corporate proxy rejected CONNECT to Mimecast (status %d). Ask its operators to allow Mimecast's API hosts, or check HTTPS_PROXY.", e.status)
	case e.others && !e.basic:
		return "The corporate proxy accepts only NTLM or Negotiate (status 407). Run cntlm or px on this machine, and set HTTPS_PROXY to it."
	case e.signedIn:
		return "The corporate proxy rejected the user and password in HTTPS_PROXY (status 407). Correct them, and percent-encode special characters."
	default:
		return "The corporate proxy requires a user and password (status 407). Put them into HTTPS_PROXY, as in http://user:password@host:port."
	}
}

// classifyCertificate returns what to do about an error whose type belongs to TLS;
// empty for another error.
func classifyCertificate(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "Mimecast's certificate is from an untrusted authority. If a corporate proxy inspects TLS, put its root into MIMECAST_CA_FILE."
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "Mimecast's certificate is for another name. Check MIMECAST_BASE_URL, and whether a firewall or corporate proxy inspects TLS."
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return "Mimecast's certificate has expired or is not valid yet. Check this machine's clock."
		}
		return "Mimecast's certificate is not valid. Check whether a firewall or corporate proxy inspects TLS."
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "The peer does not speak TLS. Check the port in MIMECAST_BASE_URL."
	}
	_, alert := errors.AsType[tls.AlertError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	if alert || verify {
		return handshakeFailed
	}
	return ""
}
