package guard

import (
	"net/http"
	"strings"
)

// isPreflight reports whether a request of an allowed origin asks for leave
// only (Fetch standard, "CORS-preflight request").
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0
}

const (
	// maxPreflightHeader bounds what a preflight may ask for, in bytes.
	maxPreflightHeader = 2048
	// preflightMaxAge is how long a browser may keep the answer, in seconds.
	preflightMaxAge = "600"
)

// servePreflight lets an allowed origin send what it asks to. A preflight bears
// no key and is no request for a route: both are judged in what follows it.
func servePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	allowListed(h, "Access-Control-Allow-Methods", r.Header["Access-Control-Request-Method"])
	allowListed(h, "Access-Control-Allow-Headers", r.Header["Access-Control-Request-Headers"])
	h.Set("Access-Control-Max-Age", preflightMaxAge)
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	// A page of a public site asks a browser for leave to call this machine.
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowListed echoes what was asked for, if it is a list of names and not too long.
func allowListed(h http.Header, name string, requested []string) {
	if len(requested) == 1 && len(requested[0]) <= maxPreflightHeader && isNameList(requested[0]) {
		h.Set(name, requested[0])
	}
}

// nameChars are those of tokens (RFC 9110, section 5.6.2), and what parts them.
const nameChars = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ, "

func isNameList(s string) bool {
	for i := range len(s) {
		if strings.IndexByte(nameChars, s[i]) < 0 {
			return false
		}
	}
	return true
}

// corsWriter lets a page of an allowed origin read the answer, a refusal too.
// It adds its headers as the last thing before the answer begins, since
// ReverseProxy clears what was set before when it passes a 1xx answer on.
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

// FlushError is for http.ResponseController: a flush may begin the answer.
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
	// No credentials mode is granted, so that the wildcard counts as one.
	h.Set("Access-Control-Expose-Headers", "*")
	h.Add("Vary", "Origin")
}
