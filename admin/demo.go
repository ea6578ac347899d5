package admin

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	g "maragu.dev/gomponents"
)

// Action is a button on the page. Demos have them.
type Action struct {
	// Name is the last part of its path.
	Name, Label, Description string
	// Do carries it out.
	Do func(ctx context.Context) error
	// Undo ends what Do began, if that lasts. Active reports whether it does now.
	Undo      func(ctx context.Context) error
	UndoLabel string
	Active    func() bool
}

// actionTimeout bounds an action.
const actionTimeout = 15 * time.Second

func actionPath(name string) string { return "/demo/" + name }
func undoPath(name string) string   { return "/demo/" + name + "/undo" }

// runAction runs the action of a button. A browser without scripts is redirected to the
// page.
func runAction(do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
		defer cancel()
		err := do(ctx)
		switch {
		case err != nil:
			writeError(w, http.StatusBadGateway, "action_failed", err.Error())
		case strings.Contains(r.Header.Get("Accept"), "text/html"):
			http.Redirect(w, r, "/", http.StatusSeeOther)
		default:
			writeJSON(w, http.StatusOK, map[string]bool{"done": true})
		}
	}
}

// demoCard has the buttons, if there are any.
func demoCard(actions []Action) g.Node {
	if len(actions) == 0 {
		return nil
	}
	var forms g.Group
	for i, a := range actions {
		forms = append(forms, a.form("action-"+strconv.Itoa(i)))
	}
	return el("section", class("card demo"), attr("aria-labelledby", "demo-title"),
		el("h2", id("demo-title"), text("Break something, and watch")),
		el("div", id("actions"), class("actions"), dataLive(), forms),
		el("p", id("acted"), class("acted"), attr("role", "status")),
	)
}

// form returns the button as it is now.
func (a Action) form(name string) g.Node {
	path, label, state, now := actionPath(a.Name), a.Label, "action", g.Group(nil)
	if a.Undo != nil && a.Active() {
		path, label, state = undoPath(a.Name), a.UndoLabel, "action on"
		now = g.Group{textEl("b", "now", "On now."), text(" ")}
	}
	return el("form", class(state), attr("method", "post"), attr("action", path),
		el("button", id(name), attr("type", "submit"), attr("aria-describedby", name+"-does"), text(label)),
		el("p", id(name+"-does"), now, text(a.Description)),
	)
}
