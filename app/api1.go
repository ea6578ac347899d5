package app

import (
	"cmp"
	"slices"
	"sync"

	"mimecast-proxy/mimecast"
)

// api1Warnings are the status page's warnings about calls that exist in API 1.0 only. Their
// number is bounded by the rows in mimecast.API1Calls.
type api1Warnings struct {
	mu    sync.Mutex // guards texts
	texts []string
}

func (w *api1Warnings) add(path, replacement string) {
	text := "A client calls " + path + ", which exists in API 1.0 only. In API 2.0 use: " + cmp.Or(replacement, "no known function")
	if path == mimecast.SIEMLogsPath {
		text += "; or set PROXY_API1=true"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text+".")
}

func (w *api1Warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.texts)
}
