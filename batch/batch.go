// Package batch is a layer of the data port for clients that can reach no host but the
// proxy. Mimecast's lists of SIEM batch files have URLs on another host, which need no
// token: anyone who has one can download the file. The layer puts a URL of the proxy in
// the place of each, and downloads the file for the client that requests it.
//
// Such a URL has Mimecast's own in it, sealed with a key that is derived from the client
// secret. So the proxy keeps no state, each replica can serve each URL, and the proxy
// fetches nothing that Mimecast did not issue. See [Transport] about what else it does
// not fetch.
package batch

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
)

const (
	// Path is what the path of all URLs of files begins with. The rest of the list's path
	// and the seal follow: the file of a list /siem/v1/batch/events/cg has
	// /batch/events/cg/SEAL.
	Path = "/batch/"
	// listPath is the path of the functions that return lists of files.
	listPath = "/siem/v1/batch/"
)

// listPattern has the paths of lists that are rewritten: those that can be read in one way
// only, so that what may list files may download them, and no more.
var listPattern = regexp.MustCompile(`^` + listPath + `[0-9A-Za-z_-]+(/[0-9A-Za-z_-]+)*$`)

// ListPath returns the path of the list that a file's URL is from; empty if a path is none
// of a file. A client that may request the list may request the file.
func ListPath(path string) string {
	if !strings.HasPrefix(path, Path) {
		return ""
	}
	list, _ := splitPath(path)
	return listPath + list
}

// splitPath returns what the path of a file's URL consists of: the rest of the list's path,
// and the seal.
func splitPath(path string) (list, sealed string) {
	rest := strings.TrimPrefix(path, Path)
	end := strings.LastIndexByte(rest, '/')
	return rest[:max(end, 0)], rest[end+1:]
}

// Options say how files are relayed. The zero value relays none: all requests pass.
type Options struct {
	// Download fetches the files: a [Transport].
	Download http.RoundTripper
	// BaseURL returns the scheme and host that a client called, such as
	// https://proxy.example:8443. It is for the URLs that the client gets.
	BaseURL func(*http.Request) string
	// MaxLists bounds the lists in memory at a time, from Mimecast's first byte until
	// the client has read it; 0 means no bound. Each has up to 8 MiB. As soon as several
	// accounts are in use, none has more than half. Further ones wait 5 seconds for their
	// first byte, and get 503 then.
	MaxLists int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Trace reports what happens; the zero value reports nothing.
	Trace Trace
}

// Trace reports what happens. Each func may be nil, is called by many goroutines at once,
// and must not block.
type Trace struct {
	// Answered reports the response of a file's host, and how long its headers took.
	Answered func(ctx context.Context, status int, took time.Duration)
	// Denied reports a request that was rejected before anything was downloaded.
	Denied func(ctx context.Context, code event.Code)
	// Failed reports an error response of this package, and a status from 400 to 499
	// of a file's host, which the client gets as it is.
	Failed func(ctx context.Context, p *problem.Problem)
}

// Wrap returns the layer. The handler that it wraps sends requests to API 2.0. The account
// in the context must have SealKeys; requests of another pass.
//
// The URLs of files are capabilities: a client that may call the proxy and has one gets
// the file. Keep their paths out of logs.
func Wrap(o Options) func(http.Handler) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	return func(next http.Handler) http.Handler {
		if o.Download == nil {
			return next
		}
		return &layer{Options: o, next: next, lists: account.NewPlaces(o.MaxLists)}
	}
}

type layer struct {
	Options
	next  http.Handler
	lists *account.Places
}

// ServeHTTP implements http.Handler.
func (l *layer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	keys := sealKeys(r)
	switch {
	case len(keys) == 0:
		l.next.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, Path):
		l.serveFile(w, r, keys)
	case r.Method == http.MethodGet && listPattern.MatchString(r.URL.EscapedPath()):
		l.serveList(w, r, keys[0])
	default:
		l.next.ServeHTTP(w, r)
	}
}

// sealKeys returns the keys of the account of a request, the current one first.
func sealKeys(r *http.Request) []secret.Text {
	a := account.Of(r.Context())
	if a == nil || a.SealKeys == nil {
		return nil
	}
	return a.SealKeys()
}

// fail sends an error response.
func (l *layer) fail(w http.ResponseWriter, r *http.Request, p *problem.Problem) {
	p.ServeHTTP(w, r)
	l.report(r, p)
}

func (l *layer) report(r *http.Request, p *problem.Problem) {
	if l.Trace.Failed != nil {
		l.Trace.Failed(r.Context(), p)
	}
}
