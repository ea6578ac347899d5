package admin

import (
	"fmt"
	"slices"
	"time"

	g "maragu.dev/gomponents"
)

// defaultOrigin is the origin of a setting that is not set.
const defaultOrigin = "default"

// settingsCard lists the configuration in force: what is set, and the defaults folded.
func settingsCard(all []Setting, now time.Time) g.Node {
	if len(all) == 0 {
		return nil
	}
	isDefault := func(s Setting) bool { return s.Origin == defaultOrigin }
	set := slices.DeleteFunc(slices.Clone(all), isDefault)
	rest := slices.DeleteFunc(slices.Clone(all), func(s Setting) bool { return !isDefault(s) })
	columns := []column{{Name: "Variable"}, {Name: "Value"}, {Name: "Origin"}}
	cells := func(s Setting) []g.Node {
		origin := g.Group{text(printable(s.Origin))}
		if !s.Changed.IsZero() {
			origin = append(origin, text(", changed "), timeEl(s.Changed, formatAgo(now, s.Changed)))
		}
		return []g.Node{el("code", text(s.Name)), text(printable(s.Value)), origin}
	}
	return card("settings", "card", "Configuration in force",
		textEl("p", "muted", fmt.Sprintf("%d variables set, %d at their default. Secrets are never shown.", len(set), len(rest))),
		table("settings-title", columns, set, cells),
		el("details", id("defaults"), el("summary", id("defaults-summary"), text("Variables at their default")),
			table("defaults-summary", columns, rest, cells)))
}
