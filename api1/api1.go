// Package api1 is a layer of the data port for clients of API 1.0. It serves four calls
// that API 2.0 lacks: the login functions from what the proxy knows, and
// get-siem-logs by a translation of API 2.0's events. All other requests pass on as they
// are.
//
// The field table and the shape of the responses were read in public clients and tried
// on recorded events, not on an account of API 1.0.
//
// # How events are found
//
// API 2.0 has a stream, with a page of 100 events for each call and 300 calls an hour,
// and batches, which are files of up to a week that appear every 15 minutes or so. Each
// type of event is read from one of them at a time:
//
//   - A client without a usable token begins a day back, with the stream.
//   - A type that is more than a page and two hours behind is read from the batches up
//     to 45 minutes ago, then from the stream again.
//   - A type that is caught up is not asked again for 150 seconds.
//
// Where the source changes, an instant divides the events: those before it come from one
// source and the others from the other, by their own timestamps. So none comes twice,
// and none is left out, in whatever order the sources have them: up to 15 minutes late
// in the stream, and 30 in a batch. A client that was off for more than 20 hours goes on
// from the batches at the instant of its last call, and misses what came late then.
//
// The position is in the client's token alone; see [Wrap] about what the process keeps.
package api1

import (
	"context"
	"net/http"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

// Header marks each response of this package. Its value is "translated".
const Header = "X-Mimecast-Proxy-Api1"

// Options configure how calls of API 1.0 are treated. The zero value leaves the layer out.
type Options struct {
	// Translate serves the calls. Otherwise they pass on like all others.
	Translate bool
	// Download fetches the files of batches, from the addresses that Mimecast issues. Their
	// host is not the API's: it gets neither the token nor a header of the client. Redirects
	// are not followed. Set time limits for connections and response headers in it. nil
	// means that events come from the stream alone, if the proxy cannot reach such a host.
	Download http.RoundTripper
	// MaxTranslations bounds the pages of events in memory at a time, from Mimecast's first
	// byte until the client has read them; 0 means no bound. Each has up to 8 MiB. As
	// soon as several accounts are in use, none has more than half. Further ones wait 5
	// seconds for their first byte, and their calls get 503 then.
	MaxTranslations int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Trace reports what happens; the zero value reports nothing.
	Trace Trace
}

// Trace reports what happens. Each func may be nil, is called by many goroutines at once,
// and must not block.
type Trace struct {
	// Translated reports a call that was served: its path, how many events were in the
	// response, and how many lines of batch files were no events and left out.
	Translated func(ctx context.Context, path string, events, skipped int)
	// StartedOver reports a token that was not issued by this package, such as one of
	// API 1.0's. The client gets the events of the last day.
	StartedOver func(ctx context.Context)
	// Failed reports an error response of this package.
	Failed func(ctx context.Context, p *problem.Problem)
}

// Wrap returns the layer. The handler that it wraps is the rest of the chain, which sends
// requests to API 2.0 with the token of the account in the context. The translation
// calls it with the requests that it makes: what is not 200 goes to the client as it came. No
// guard checks these again: a client that may call get-siem-logs may read the events of
// the cloud gateway.
//
// The layer keeps no state that a second process would need. To save calls it
// remembers for a short time which types of event were caught up.
func Wrap(o Options) func(http.Handler) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	return func(next http.Handler) http.Handler {
		if !o.Translate {
			return next
		}
		return &layer{Options: o, next: next, translations: account.NewPlaces(o.MaxTranslations)}
	}
}

type layer struct {
	Options
	next   http.Handler
	caught caughtUp
	files  fileClock
	// translations are the calls of get-siem-logs that keep a page.
	translations *account.Places
}

// calls are the calls that the layer serves, by their paths.
var calls = map[string]func(*layer, http.ResponseWriter, *http.Request){
	mimecast.DiscoverPath: answer(discover),
	mimecast.LoginPath:    answer(login),
	mimecast.LogoutPath:   answer(logout),
	mimecast.SIEMLogsPath: (*layer).serveSIEMLogs,
}

// Serves reports whether the layer serves a request. It passes on all others.
func Serves(method, path string) bool { return method == http.MethodPost && calls[path] != nil }

// ServeHTTP implements http.Handler.
func (l *layer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !Serves(r.Method, r.URL.Path) {
		l.next.ServeHTTP(w, r)
		return
	}
	calls[r.URL.Path](l, w, r)
}

// mark sets the headers that each response of this package has.
func mark(h http.Header) {
	h.Set(Header, "translated")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// fail sends an error response.
func (l *layer) fail(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	mark(w.Header())
	p.ServeHTTP(w, r)
	if l.Trace.Failed != nil {
		l.Trace.Failed(r.Context(), p)
	}
}

// translated reports a call that was served.
func (l *layer) translated(r *http.Request, events, skipped int) {
	if l.Trace.Translated != nil {
		l.Trace.Translated(r.Context(), r.URL.Path, events, skipped)
	}
}
