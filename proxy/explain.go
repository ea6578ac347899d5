package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"mimecast-proxy/problem"
)

// Explain says what an error on the way to the upstream means, and what to do
// about it. The context is the request's: where it ended, that is the reason,
// whatever the error says.
func Explain(ctx context.Context, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](context.Cause(ctx)); ok {
		return p
	}
	if ctx.Err() != nil {
		return problem.New(problem.ClientGone, "the client went away").Because(err)
	}
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	if _, ok := errors.AsType[*ClientBodyError](err); ok {
		return problem.New(problem.BadRequestBody, "The request body ended early or is malformed.").Because(err)
	}
	code, detail := judge(err)
	return problem.New(code, "%s", detail).Because(err)
}

func judge(err error) (problem.Code, string) {
	if detail := judgeTLS(err); detail != "" {
		return problem.UpstreamTLS, detail
	}
	if detail := judgeWay(err); detail != "" {
		return problem.UpstreamUnreachable, detail
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return problem.UpstreamTimeout, "Mimecast did not answer in time. Whether it carried the request out is not known."
	}
	if lost(err) {
		return problem.UpstreamReset, "Mimecast closed the connection before it answered. Whether it carried the request out is not known."
	}
	return problem.UpstreamReset, "Mimecast's answer cannot be used. Whether it carried the request out is not known."
}

// judgeWay returns what to do where no connection came about, so that nothing
// was sent; nothing for another error.
func judgeWay(err error) string {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "The proxy has no file descriptor left for a connection to Mimecast. Raise its limit (ulimit -n), or lower PROXY_MAX_REQUESTS."
	}
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Op == "proxyconnect" {
		return "The company proxy that HTTPS_PROXY names cannot be reached. Check its name and port; if there is none, unset HTTPS_PROXY."
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "Mimecast's name cannot be resolved. Check this machine's DNS and MIMECAST_BASE_URL."
	}
	if isOp && op.Op == "dial" {
		return "Mimecast cannot be reached. Check this machine's network and firewall; behind a company proxy set HTTPS_PROXY."
	}
	if strings.Contains(err.Error(), "TLS handshake timeout") { // net/http's has nothing but a text
		return "Something answered in Mimecast's place and then fell silent before a secure connection was made. Check the firewall; behind a company proxy set HTTPS_PROXY."
	}
	if refused, ok := errors.AsType[*refusedByProxy](err); ok {
		return refused.advice()
	}
	return ""
}

// refusedByProxy says that the forward proxy opened no way to the upstream.
type refusedByProxy struct{ status int }

func (e *refusedByProxy) Error() string {
	return fmt.Sprintf("the company proxy answered CONNECT with status %d", e.status)
}

func (e *refusedByProxy) advice() string {
	if e.status == http.StatusProxyAuthRequired {
		return "The company proxy wants a user and password (status 407). Put them into HTTPS_PROXY, as in http://user:password@host:port."
	}
	return fmt.Sprintf("The company proxy refused the way to Mimecast (status %d). Ask its operators to allow Mimecast's API hosts, or check HTTPS_PROXY.", e.status)
}

// lost reports whether err says that the connection ended before the answer
// began. Some of net/http's errors for that have nothing but a text.
func lost(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	for _, text := range []string{"server closed idle connection", "client connection lost", "client connection force closed", "client conn is closed", "client conn could not be established", "GOAWAY"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// judgeTLS returns what to do about a TLS failure, or nothing for another.
func judgeTLS(err error) string {
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
	if alert || verify || strings.Contains(err.Error(), "tls: ") {
		return "No secure connection to Mimecast could be made. Check whether something on the way intercepts TLS."
	}
	return ""
}
