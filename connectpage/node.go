package connectpage

import g "maragu.dev/gomponents"

// The page is built of nodes, which escape every text and every attribute. As in
// package admin, a compiler that puts gomponents' own wherever they are called makes the
// program larger.

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

// card is a section of the page under a title.
func card(name, title string, with ...g.Node) g.Node {
	return el("section", id(name), class("card "+name), attr("aria-labelledby", name+"-title"),
		el("h2", id(name+"-title"), text(title)), g.Group(with))
}

// definition is a term and its value in a description list; nothing without a value.
func definition(term, value string) g.Node {
	return g.If(value != "", el("div", el("dt", text(term)), el("dd", text(value))))
}
