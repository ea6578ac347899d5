package app

import (
	"cmp"
	"net/http"
	"slices"
	"sync"

	"mimecast-proxy/api1"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
)

// api1Warnings are the status page's warnings about calls that exist in API 1.0 only. Their
// number is bounded by the rows in mimecast.API1Calls.
type api1Warnings struct {
	mu    sync.Mutex // guards calls
	calls []mimecast.API1Call
}

// add adds the call of a request that got Mimecast's 404. It returns false if there is
// none, or one that was added before: a client that polls would fill the log. translate
// says that the proxy serves calls of API 1.0.
func (w *api1Warnings) add(o event.Outcome, translate bool) (call mimecast.API1Call, ok bool) {
	if o.Status != http.StatusNotFound || o.Answered.IsZero() || translate && api1.Serves(o.Method, o.Path) {
		return call, false
	}
	if call, ok = mimecast.API1Only(o.Path); !ok {
		return call, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Contains(w.calls, call) {
		return call, false
	}
	w.calls = append(w.calls, call)
	return call, true
}

// all returns the warnings as texts.
func (w *api1Warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return convert(w.calls, api1Warning)
}

func api1Warning(c mimecast.API1Call) string {
	text := "A client calls " + c.Path + ", which exists in API 1.0 only. In API 2.0 use: " + cmp.Or(c.Replacement, "no known function")
	if c.Path == mimecast.SIEMLogsPath {
		text += "; or set PROXY_API1=true"
	}
	return text + "."
}
