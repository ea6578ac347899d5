package admin

import (
	"time"

	g "maragu.dev/gomponents"

	"mimecast-proxy/event"
)

// The page is built of nodes, which escape every text and every attribute. They
// are all made by these four: gomponents' own are so short that the compiler
// puts them wherever they are called, with the code that renders, which makes
// the program 0.4 MiB larger.

//go:noinline
func el(name string, with ...g.Node) g.Node { return g.El(name, with...) }

//go:noinline
func attr(name, value string) g.Node { return g.Attr(name, value) }

//go:noinline
func boolAttr(name string) g.Node { return g.Attr(name) }

//go:noinline
func text(s string) g.Node { return g.Text(s) }

func id(value string) g.Node    { return attr("id", value) }
func class(value string) g.Node { return attr("class", value) }

// textEl is an element of a class with a text.
func textEl(element, of, s string) g.Node { return el(element, class(of), text(s)) }

// dataLive marks what page.js replaces by the element with the same ID of a newer page.
func dataLive() g.Node { return boolAttr("data-live") }

// card is a section of the page under a title.
func card(name, of, title string, with ...g.Node) g.Node {
	return el("section", id(name), class(of), dataLive(), attr("aria-labelledby", name+"-title"),
		el("h2", id(name+"-title"), text(title)), g.Group(with))
}

// statusLight shows a state by color and shape. Screen readers skip it.
func statusLight(state event.HealthState) g.Node {
	return el("span", class("lamp "+string(state)), attr("aria-hidden", "true"))
}

// definition is a term and its value in a description list.
func definition(term string, is ...g.Node) g.Node {
	return el("div", el("dt", text(term)), el("dd", is...))
}

// timeEl is a time, with a text for people.
func timeEl(t time.Time, words string) g.Node {
	return el("time", attr("datetime", t.UTC().Format(time.RFC3339)), text(words))
}

// clock is a time with its date. page.js shows local time on demand.
func clock(t time.Time) g.Node {
	return el("time", class("at"), attr("datetime", t.UTC().Format(time.RFC3339)), text(t.UTC().Format(dateTime)))
}

// stamp is a time with its zone.
func stamp(t time.Time) g.Node { return g.Group{clock(t), text(" "), zone()} }

// zone is the zone of a clock.
func zone() g.Node { return textEl("span", "zone", "UTC") }

// isolated keeps a client's text from changing the direction of the text around it.
func isolated(with ...g.Node) g.Node { return el("bdi", class("path"), g.Group(with)) }

// svg is an image that is stretched to its place. The label describes it for screen
// readers.
func svg(box, label string, with ...g.Node) g.Node {
	return el("svg", attr("viewBox", box), attr("preserveAspectRatio", "none"), attr("role", "img"), attr("aria-label", label), g.Group(with))
}
