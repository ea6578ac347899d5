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

// unknownOutcome ends the details of errors after which nobody knows what
// Mimecast did.
const unknownOutcome = "Whether it carried the request out is not known."

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
	// Else it is of a lookup or a dial alone.
	if detail := classifyDial(err); detail != "" && (reached != written || !ofAttempt) {
		return event.UpstreamUnreachable, detail
	}
	switch {
	case reached != written && errors.Is(err, errConnectionsRejected):
		return event.UpstreamUnreachable, "Mimecast closed each new connection before it took a request. Nothing was sent; send the request again later."
	case reached == connecting:
		return event.UpstreamUnreachable, "Mimecast cannot be reached. Check this machine's network and firewall; behind a corporate proxy set HTTPS_PROXY."
	case reached == handshake && isTimeout(err):
		return event.UpstreamUnreachable, "Something answered in Mimecast's place and then fell silent before a secure connection was made. Check the firewall; behind a corporate proxy set HTTPS_PROXY."
	case reached == handshake && isConnectionEnd(err):
		return event.UpstreamUnreachable, "The connection was closed before it was secure. Check the firewall; behind a corporate proxy set HTTPS_PROXY."
	case reached == handshake:
		return event.UpstreamTLS, "No secure connection to Mimecast could be made. Check whether something on the way intercepts TLS."
	case reached == connected:
		return event.UpstreamUnreachable, "The connection to Mimecast ended before the request was sent. Send it again."
	case isTimeout(err):
		return event.UpstreamTimeout, "Mimecast did not answer in time. " + unknownOutcome
	}
	return event.UpstreamReset, "The connection to Mimecast ended before a usable response came. " + unknownOutcome
}

// isConnectionEnd reports whether the peer, or the network, ended a connection.
func isConnectionEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// classifyDial returns what to do where an error's type says why no connection
// came about; nothing for another error.
func classifyDial(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "The proxy has no file descriptor left for a connection to Mimecast. Raise its limit (ulimit -n), or lower PROXY_MAX_REQUESTS."
	}
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "proxyconnect" {
		return "The corporate proxy that HTTPS_PROXY names cannot be reached. Check its name and port; if there is none, unset HTTPS_PROXY."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "Mimecast's name cannot be resolved. Check this machine's DNS and MIMECAST_BASE_URL."
	}
	if isOp && op.Op == "dial" {
		return "Mimecast cannot be reached. Check this machine's network and firewall; behind a corporate proxy set HTTPS_PROXY."
	}
	if refused, ok := errors.AsType[*refusedByProxy](err); ok {
		return refused.advice()
	}
	return ""
}

// refusedByProxy says that the corporate proxy opened no way to the upstream.
type refusedByProxy struct {
	status int
	// signedIn says that it was given a user and password; basic that it takes
	// them; others that it offers other ways to sign in.
	signedIn, basic, others bool
}

func (e *refusedByProxy) Error() string {
	return fmt.Sprintf("the corporate proxy answered CONNECT with status %d", e.status)
}

func (e *refusedByProxy) advice() string {
	switch {
	case e.status != http.StatusProxyAuthRequired:
		return fmt.Sprintf("The corporate proxy refused the way to Mimecast (status %d). Ask its operators to allow Mimecast's API hosts, or check HTTPS_PROXY.", e.status)
	case e.others && !e.basic:
		return "The corporate proxy takes no password, only sign-in such as NTLM or Negotiate (status 407), which is not supported. Put a local proxy that signs in, such as cntlm or px, between: HTTPS_PROXY=http://127.0.0.1:3128."
	case e.signedIn:
		return "The corporate proxy refused the user and password in HTTPS_PROXY (status 407). Correct them, and percent-encode special characters."
	default:
		return "The corporate proxy wants a user and password (status 407). Put them into HTTPS_PROXY, as in http://user:password@host:port."
	}
}

// classifyCertificate returns what to do about a failure whose type is TLS's own;
// nothing for another error.
func classifyCertificate(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "The certificate that was shown for Mimecast is signed by an authority that this machine does not trust. If your company inspects TLS, put its root certificate into MIMECAST_CA_FILE."
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "The certificate that was shown for Mimecast is for another name. Check MIMECAST_BASE_URL, and whether something on the way intercepts TLS."
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return "The certificate that was shown for Mimecast has expired or is not valid yet. Check this machine's clock."
		}
		return "The certificate that was shown for Mimecast is not valid."
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "What answered does not speak TLS. Check the port in MIMECAST_BASE_URL."
	}
	_, alert := errors.AsType[tls.AlertError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	if alert || verify {
		return "No secure connection to Mimecast could be made. Check whether something on the way intercepts TLS."
	}
	return ""
}
