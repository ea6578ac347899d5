package admin

import (
	"time"

	g "maragu.dev/gomponents"
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
func flag(name string) g.Node { return g.Attr(name) }

//go:noinline
func text(s string) g.Node { return g.Text(s) }

func id(value string) g.Node    { return attr("id", value) }
func class(value string) g.Node { return attr("class", value) }

// say puts a text into an element of a class.
func say(element, of, s string) g.Node { return el(element, class(of), text(s)) }

// dataLive marks what page.js replaces by what has the same ID on a newer page.
func dataLive() g.Node { return flag("data-live") }

// card is a section of the page under a title.
func card(name, of, title string, with ...g.Node) g.Node {
	return el("section", id(name), class(of), dataLive(), attr("aria-labelledby", name+"-title"),
		el("h2", id(name+"-title"), text(title)), g.Group(with))
}

// lamp shows a state by its colour and shape, for those who see.
func lamp(state string) g.Node {
	return el("span", class("lamp "+state), attr("aria-hidden", "true"))
}

// fact is a term and what there is to say of it, in a list of such.
func fact(term string, is ...g.Node) g.Node {
	return el("div", el("dt", text(term)), el("dd", is...))
}

// moment tells a time in words.
func moment(t time.Time, words string) g.Node {
	return el("time", attr("datetime", t.UTC().Format(time.RFC3339)), text(words))
}

// stranger keeps what came from elsewhere from turning the direction of what is
// around it.
func stranger(with ...g.Node) g.Node { return el("bdi", class("path"), g.Group(with)) }

// drawing fills its place, however wide that is, with what is drawn in a box.
// The label says in words what there is to be seen.
func drawing(box, label string, with ...g.Node) g.Node {
	return el("svg", attr("viewBox", box), attr("preserveAspectRatio", "none"), attr("role", "img"), attr("aria-label", label), g.Group(with))
}
