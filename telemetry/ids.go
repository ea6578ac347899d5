package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// requestID returns the client's request ID if it is valid and contains no secret, else
// a new one.
func (t *Telemetry) requestID(r *http.Request) string {
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && isValidID(ids[0]) && t.redactor.Redact(ids[0]) == ids[0] {
		return ids[0]
	}
	return newRequestID()
}

func newRequestID() string {
	var raw [8]byte
	var text [16]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64())
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// isValidID reports whether s is a valid ID: 1 to maxID visible ASCII characters.
func isValidID(s string) bool {
	return s != "" && len(s) <= maxID && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// peerHost returns an address without its port, or "unix" for a unix socket.
func peerHost(address string) string {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "unix"
	}
	return strings.Trim(address[:i], "[]")
}

// traceID returns the trace ID of a valid traceparent header (W3C Trace Context,
// section 3.2), or "".
func traceID(headers []string) string {
	const length = len("00-") + 32 + len("-") + 16 + len("-00")
	if len(headers) != 1 || len(headers[0]) < length {
		return ""
	}
	h := headers[0]
	version, trace, parent, flags := h[:2], h[3:35], h[36:52], h[53:55]
	switch {
	case h[2] != '-' || h[35] != '-' || h[52] != '-',
		version == "ff", version == "00" && len(h) > length, len(h) > length && h[length] != '-',
		!isHex(version) || !isHex(trace) || !isHex(parent) || !isHex(flags),
		strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "":
		return ""
	}
	return trace
}

// isHex reports whether s has only lower-case hexadecimal digits.
func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}
