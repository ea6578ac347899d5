package admin

import (
	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// codeLink leads to a code's meaning in the list at the end of the page.
func codeLink(code string) g.Node {
	return el("a", class("code"), attr("href", "#code-"+code), el("code", text(code)))
}

// codesCard says what each code means and what to do. It is not live: a reader stays where
// a link led.
func codesCard() g.Node {
	return el("section", id("codes"), class("card"), attr("aria-labelledby", "codes-title"),
		el("h2", id("codes-title"), text("Codes")),
		el("details", id("codes-all"), el("summary", id("codes-summary"), text("What each code means, and what to do")),
			el("dl", class("codes"),
				g.Map(event.Kinds(), func(k event.Kind) g.Node { return codeEntry(string(k.Code), k.Component, k.Summary, k.Remedy) }),
				g.Map(event.Conditions(), func(c event.Condition) g.Node {
					return codeEntry(string(c.Cause), c.Component, c.Summary, c.Remedy)
				}),
			)),
	)
}

func codeEntry(code string, of event.Component, summary, remedy string) g.Node {
	return el("div", id("code-"+code), attr("tabindex", "-1"),
		el("dt", el("code", text(code)), text(" "+componentNames[of])),
		el("dd", text(summary+". "+remedy)),
	)
}
