package guard

import (
	"net/http"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// countFields returns how many fields a header has.
func countFields(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}

// checkHeaders bounds the fields, each of which costs several times its size.
func (g *Guard) checkHeaders(r *http.Request) *problem.Problem {
	if g.maxHeaderFields == 0 || countFields(r.Header) <= g.maxHeaderFields {
		return nil
	}
	return problem.New(event.HeadersTooLarge, "The request has more than %d header fields. Send fewer, or raise PROXY_MAX_HEADER_FIELDS.", g.maxHeaderFields)
}
