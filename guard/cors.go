package guard

import (
	"net/http"
	"strings"
)

// isPreflight reports whether a request of an allowed origin is a CORS preflight
// (Fetch standard, "CORS-preflight request").
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0
}

const (
	// maxPreflightHeader is the longest list that a preflight is granted, in bytes.
	maxPreflightHeader = 2048
	// preflightMaxAge is how long a browser may cache the response, in seconds.
	preflightMaxAge = "600"
)

// servePreflight lets an allowed origin send the request that it announces. A
// preflight has no key and no route: both are checked in that request.
func servePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	allowListed(h, "Access-Control-Allow-Methods", r.Header["Access-Control-Request-Method"])
	allowListed(h, "Access-Control-Allow-Headers", r.Header["Access-Control-Request-Headers"])
	h.Set("Access-Control-Max-Age", preflightMaxAge)
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	// A page of a public site needs this to call a private address.
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowListed sets a header to what was requested, if it is a list of names and not
// too long.
func allowListed(h http.Header, name string, requested []string) {
	if len(requested) == 1 && len(requested[0]) <= maxPreflightHeader && isNameList(requested[0]) {
		h.Set(name, requested[0])
	}
}

// nameChars are those of tokens (RFC 9110, section 5.6.2), and what separates them.
const nameChars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ, "

func isNameList(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(nameChars, s[i]) < 0 {
			return false
		}
	}
	return true
}

// corsWriter lets a page of an allowed origin read the response, a rejection too.
// It adds its headers just before the response begins, since ReverseProxy clears
// earlier ones when it passes on a 1xx response.
type corsWriter struct {
	http.ResponseWriter
	origin       string
	headersAdded bool
}

func (w *corsWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.addHeaders()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *corsWriter) Write(b []byte) (int, error) {
	w.addHeaders()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController: a flush may begin the response.
func (w *corsWriter) FlushError() error {
	w.addHeaders()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *corsWriter) addHeaders() {
	if w.headersAdded {
		return
	}
	w.headersAdded = true
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", w.origin)
	// Credentials are not allowed, so the wildcard means every header.
	h.Set("Access-Control-Expose-Headers", "*")
	h.Add("Vary", "Origin")
}
