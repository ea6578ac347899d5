package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed web
var web embed.FS

// Action is a button on the page. Demos have them.
type Action struct {
	// Name is its last part of a path.
	Name, Label, Description string
	// Do carries it out.
	Do func(ctx context.Context) error
	// Undo ends what Do began, where that lasts, under a label of its own;
	// Active then says whether there is anything to end.
	Undo      func(ctx context.Context) error
	UndoLabel string
	Active    func() bool
}

// button is what an Action looks like now.
type button struct {
	Path, Label, Description string
	Active                   bool
}

// actionTimeout bounds what a button sets off.
const actionTimeout = 15 * time.Second

// policy lets the page use what is served beside it and nothing else.
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

// page is parsed when it is first asked for, which costs milliseconds: most
// processes are never looked at.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page.html").Funcs(functions).ParseFS(web, "web/page.html"))
})

var functions = template.FuncMap{
	"ms": ms, "plain": plain, "clock": clock, "until": until, "sentence": sentence, "words": wordsFor, "left": left, "class": statusClass,
	"ago":     ago,
	"elapsed": func(now, at time.Time) string { return span(now.Sub(at)) },
	"culprit": func(c string) string { return capital(culprits[c]) },
	"outcome": func(o string) string { return outcomes[o] },
	"quota":   quota,
	"reset":   reset,
	"trigger": func(t string) string { return triggers[t] },
	"verbal":  func(state string) string { return states[state] },
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
}

// left returns how much of the life of a token that works is left, in percent.
func left(t TokenState, now time.Time) int {
	life := t.Expiry.Sub(t.FetchedAt)
	if life <= 0 || !t.Valid || t.Rejected {
		return 0
	}
	return int(min(max(t.Expiry.Sub(now)*100/life, 0), 100))
}

// statusClass returns how a request's status is coloured.
func statusClass(r Request) string {
	switch {
	case r.Fault == "":
		return "fine"
	case r.Culprit == "tool":
		return "tool"
	default:
		return "failed"
	}
}

func (h *handler) addPage() {
	h.local(get, "/", h.page)
	for at, a := range assets {
		h.local(get, at, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			send(w, http.StatusOK, a.contentType, a.body)
		})
	}
	for _, a := range h.options.Demo {
		h.local(post, actionPath(a.Name), act(a.Do))
		if a.Undo != nil {
			h.local(post, undoPath(a.Name), act(a.Undo))
		}
	}
}

func actionPath(name string) string { return "/demo/" + name }
func undoPath(name string) string   { return "/demo/" + name + "/undo" }

// buttons returns how the actions look now.
func buttons(actions []Action) []button {
	all := make([]button, len(actions))
	for i, a := range actions {
		all[i] = button{Path: actionPath(a.Name), Label: a.Label, Description: a.Description}
		if a.Undo != nil && a.Active() {
			all[i].Path, all[i].Label, all[i].Active = undoPath(a.Name), a.UndoLabel, true
		}
	}
	return all
}

func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	if err := page().Execute(&body, newView(h.current(), r.URL.Query(), h.options.Demo)); err != nil {
		panic(err) // the template does not fit the view
	}
	w.Header().Set("Content-Security-Policy", policy)
	// With no-referrer a browser calls the origin of the page's own forms null.
	w.Header().Set("Referrer-Policy", "same-origin")
	send(w, http.StatusOK, "text/html; charset=utf-8", body.Bytes())
}

// act carries out what a button stands for. A browser without scripts is led
// back to the page.
func act(do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
		defer cancel()
		err := do(ctx)
		switch {
		case err != nil:
			refuse(w, http.StatusBadGateway, "action_failed", err.Error())
		case strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/", http.StatusSeeOther)
		default:
			answer(w, http.StatusOK, map[string]bool{"done": true})
		}
	}
}
