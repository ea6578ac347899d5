package guard

import (
	"net/http"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// target is a request's path, byte for byte as it goes upstream.
type target struct {
	path string
	// decodings are the path as it came and after each round of decoding, if another
	// server might interpret it differently: if it has an escape, a backslash, a
	// parameter, a doubled slash or the like. Else there are none.
	decodings []string
}

// parseTarget checks the request target as it came, not as net/http parsed it, and
// rejects one with more than one meaning.
func (g *Guard) parseTarget(r *http.Request) (target, *problem.Problem) {
	originForm, p := g.originForm(r)
	if p != nil {
		return target{}, p
	}
	raw, _, _ := strings.Cut(originForm, "?")
	if strings.HasPrefix(raw, "//") {
		return target{}, badTarget("The path begins with two slashes, which could be read as a host. Check how the base URL and the path are joined.")
	}
	if strings.IndexByte(raw, '#') >= 0 { // after the ? it can change no decision
		return target{}, badTarget("The request target has a fragment. Leave it out, or send # as %%23.")
	}
	if !mayBeAmbiguous(raw) {
		return target{path: raw}, nil
	}
	decodings, reason := interpretations(raw)
	if reason != "" {
		return target{}, badTarget("The path has %s, so it is ambiguous. Send it without.", reason)
	}
	return target{raw, decodings}, nil
}

func badTarget(detail string, args ...any) *problem.Problem {
	return problem.New(event.BadRequestTarget, detail, args...)
}

// originForm returns path and query of a request target, which is these two
// alone or with the proxy's own address before them (RFC 9112, section 3.2).
func (g *Guard) originForm(r *http.Request) (string, *problem.Problem) {
	uri := r.RequestURI
	if r.Method == http.MethodConnect || r.Method == "PRI" || uri == "*" {
		return "", badTarget("This port accepts requests for a path over HTTP/1.1, and opens no tunnels. For a client that needs one, set PROXY_INTERCEPT_LISTEN.")
	}
	if strings.HasPrefix(uri, "/") {
		return uri, nil
	}
	const scheme = "http://"
	if len(uri) > len(scheme) && strings.EqualFold(uri[:len(scheme)], scheme) {
		authority, rest := uri[len(scheme):], ""
		if i := strings.IndexAny(authority, "/?#"); i >= 0 {
			authority, rest = authority[:i], authority[i:]
		}
		if !strings.HasPrefix(rest, "/") {
			rest = "/" + rest
		}
		if _, ok := hostName(authority); ok && g.hosts.accepts(authority) {
			return rest, nil
		}
	}
	return "", badTarget("The request is for another host. Use the proxy's address as base URL, not as HTTP_PROXY; or set PROXY_INTERCEPT_LISTEN.")
}

// mayBeAmbiguous reports whether a path has a character that servers interpret in
// different ways.
func mayBeAmbiguous(p string) bool {
	last := byte(0)
	for i := range len(p) {
		b := p[i]
		if b <= ' ' || b >= 0x7f || b == '%' || b == '\\' || b == ';' {
			return true
		}
		if last == '/' && (b == '/' || b == '.') {
			return true
		}
		last = b
	}
	return false
}

// interpretations returns a path as it came and after each round of decoding, or the
// reason why it is rejected as ambiguous.
func interpretations(raw string) (decodings []string, reason string) {
	if !validEscapes(raw) {
		return nil, "a % that begins no escape"
	}
	decodings, complete := decodeRepeatedly(raw)
	if !complete {
		return nil, "escapes within escapes"
	}
	for _, text := range decodings {
		if reason = rejectReason(text); reason != "" {
			return nil, reason
		}
	}
	return decodings, ""
}

// rejectReason returns why a path is always rejected; empty if it is not.
func rejectReason(text string) string {
	for i := range len(text) {
		if b := text[i]; b < ' ' || b == 0x7f {
			return "a control character"
		}
	}
	if !utf8.ValidString(text) {
		return "bytes that are not UTF-8" // which some take for a dot or a slash
	}
	for segment := range strings.FieldsFuncSeq(text, isSlash) {
		if name := withoutParameters(segment); name == "." || name == ".." {
			return "a dot segment"
		}
	}
	return ""
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

// withoutParameters cuts what some servers do not count as a segment's name: path
// parameters, and a decoded query or fragment.
func withoutParameters(segment string) string {
	if i := strings.IndexAny(segment, ";?#"); i >= 0 {
		return segment[:i]
	}
	return segment
}

// maxDecodings bounds how often a path is decoded. A gateway may decode once or twice
// too often; a path that still has escapes then is an attack.
const maxDecodings = 3

// decodeRepeatedly returns a path as it came and after each round of decoding that
// changes it. It reports whether a further round would change nothing.
func decodeRepeatedly(raw string) (decodings []string, complete bool) {
	decodings = append(decodings, raw)
	for range maxDecodings {
		last := decodings[len(decodings)-1]
		next := unescape(last)
		if next == last {
			return decodings, true
		}
		decodings = append(decodings, next)
	}
	last := decodings[len(decodings)-1]
	return decodings, unescape(last) == last
}

// unescape decodes every escape once (RFC 3986, section 2.1) and leaves a % that begins
// none as it is. url.PathUnescape fails at the first such %; not every server does.
func unescape(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for ; i < len(s); i++ {
		if isEscape(s, i) {
			b, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // isEscape has checked both digits
			out = append(out, byte(b))
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func validEscapes(s string) bool {
	for i := range len(s) {
		if s[i] == '%' && !isEscape(s, i) {
			return false
		}
	}
	return true
}

func isEscape(s string, i int) bool {
	return s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2])
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f'
}

// lenientPath returns a path as the most lenient server interprets it: backslashes are
// slashes, doubled slashes are one, and parameters are dropped.
func lenientPath(text string) string {
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		text = text[:i]
	}
	isDir := strings.HasSuffix(text, "/") || strings.HasSuffix(text, `\`)
	segments := strings.FieldsFunc(text, isSlash)
	for i, segment := range segments {
		segments[i] = withoutParameters(segment)
	}
	clean := path.Clean("/" + strings.Join(segments, "/"))
	if isDir && clean != "/" {
		clean += "/"
	}
	return clean
}
