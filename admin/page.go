package admin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

//go:embed web
var web embed.FS

// policy lets the page load only what this listener serves.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// assets are served by names that change with what is in them, so that they
// may be kept for ever and a page never meets another version's.
var (
	assets     = loadAssets()
	assetPaths = pathsOf(assets)
)

type asset struct {
	name        string
	contentType string
	body        []byte
}

// loadAssets returns the assets by their paths.
func loadAssets() map[string]asset {
	all := make(map[string]asset)
	for name, contentType := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		body, err := web.ReadFile("web/" + name)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(body)
		ext := path.Ext(name)
		all["/static/"+strings.TrimSuffix(name, ext)+"."+hex.EncodeToString(sum[:6])+ext] = asset{name, contentType, body}
	}
	return all
}

// pathsOf returns the paths by the assets' names.
func pathsOf(all map[string]asset) map[string]string {
	paths := make(map[string]string)
	for at, a := range all {
		paths[a.name] = at
	}
	return paths
}

func (h *handler) addPage() {
	h.local(get, "/", h.page)
	for at, a := range assets {
		h.local(get, at, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			write(w, http.StatusOK, a.contentType, a.body)
		})
	}
	for _, a := range h.options.Demo {
		h.local(post, actionPath(a.Name), runAction(a.Do))
		if a.Undo != nil {
			h.local(post, undoPath(a.Name), runAction(a.Undo))
		}
	}
}

func (h *handler) settings() []Setting {
	if h.options.Support == nil {
		return nil
	}
	return h.options.Support().Settings
}

func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	s := h.current()
	var body bytes.Buffer
	_ = document(&s, newFilter(r.URL.Query()), h.settings(), h.options.Demo).Render(&body) // a buffer takes it all
	w.Header().Set("Content-Security-Policy", policy)
	// With no-referrer a browser calls the origin of the page's own forms null.
	w.Header().Set("Referrer-Policy", "same-origin")
	write(w, http.StatusOK, "text/html; charset=utf-8", body.Bytes())
}
