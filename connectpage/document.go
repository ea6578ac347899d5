package connectpage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	g "maragu.dev/gomponents"
	"maragu.dev/gomponents/html"
)

// document is a whole page. The account's definitions stand in its header.
func document(title string, account []g.Node, main ...g.Node) g.Node {
	return html.Doctype(el("html", attr("lang", "en"),
		el("head",
			el("meta", attr("charset", "utf-8")),
			el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
			el("meta", attr("name", "color-scheme"), attr("content", "light dark")),
			el("title", text(title+" · Mimecast Proxy")),
			el("link", attr("rel", "icon"), attr("href", icon.path), attr("type", "image/svg+xml")),
			el("link", attr("rel", "stylesheet"), attr("href", style.path)),
		),
		el("body",
			el("header", class("top"),
				el("h1", text("Mimecast Proxy "), textEl("span", "version", "connect")),
				g.If(len(account) > 0, el("dl", class("account"), g.Group(account))),
			),
			el("main", main...),
			el("footer", el("p", text("The program mimecast-proxy on this machine serves this page. No page shows the secret again."))),
		),
	))
}

// banner says how things stand.
func banner(state, answer string, with ...g.Node) g.Node {
	return el("section", class("verdict "+state), attr("aria-label", "Result"),
		el("span", class("lamp "+state), attr("aria-hidden", "true")),
		el("div", textEl("h2", "answer", answer), g.Group(with)),
	)
}

// account returns what is known of the account before the user enters anything.
func (o *Options) account() []g.Node {
	known := []g.Node{definition("Profile", o.Profile)}
	if len(o.Regions) == 0 || o.Rotate {
		known = append(known, definition("Region", o.Input.Region), definition("API", o.BaseURL))
	}
	return known
}

// connectedPage is shown in the end.
func connectedPage(o *Options, c *Connected) g.Node {
	return document("Connected", []g.Node{definition("Profile", o.Profile)},
		banner("ok", headline(c),
			g.If(c.Stored != "", textEl("p", "advice", "Stored "+c.Stored+".")),
			g.If(len(c.Notes) > 0, el("ul", class("notes"), g.Map(c.Notes, func(note string) g.Node { return el("li", text(note)) }))),
		),
		nextCard(c.Next),
	)
}

// nextCard has the command to run next, if there is one.
func nextCard(command string) g.Node {
	closing := textEl("p", "muted", "You can close this page.")
	if command == "" {
		return closing
	}
	return card("next", "Run this next", el("pre", el("code", text(command))), closing)
}

// headline returns a sentence such as "Connected to Harbour Mills Ltd, eu; token valid
// for 30 minutes".
func headline(c *Connected) string {
	s := "Connected"
	switch {
	case c.Account != "" && c.Region != "":
		s += " to " + c.Account + ", " + c.Region
	case c.Account != "":
		s += " to " + c.Account
	case c.Region != "":
		s += " to region " + c.Region
	}
	if c.Lifetime > 0 {
		s += "; token valid for " + formatLifetime(c.Lifetime)
	}
	return s
}

func formatLifetime(d time.Duration) string {
	n, unit := int64(d.Round(time.Minute)/time.Minute), "minute"
	if d < time.Minute {
		n, unit = int64(d.Round(time.Second)/time.Second), "second"
	}
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// problem is a page that says why a request was rejected.
type problem struct {
	status       int
	text, advice string
}

const runAgain = "Run the command again for a new link."

// The pages of rejected requests.
var (
	wrongHost    = problem{403, "This name is not allowed", "Open the link exactly as the command printed it."}
	wrongOrigin  = problem{403, "Request from another web page", "Only this page's own form is accepted. Open the link exactly as the command printed it."}
	wrongCode    = problem{403, "This link is not valid", "Open the link exactly as the command printed it. " + runAgain}
	usedCode     = problem{403, "This link works once", "Another tab may have the page open. Otherwise, run the command again for a new link."}
	prefetched   = problem{403, "This link cannot be loaded ahead", "Open the link to see the page."}
	wrongSession = problem{403, "This form is not valid", "It does not belong to the page that the link opened. " + runAgain}
	notFound     = problem{404, "Page not found", "Open the link exactly as the command printed it."}
	wrongMethod  = problem{405, "Method not allowed", "Open the link exactly as the command printed it."}
	bodyTooLarge = problem{413, "The form is too large", "Go back and enter one client ID and one secret."}
	wrongType    = problem{415, "This is not the page's form", "Only this page's own form is accepted."}
	badForm      = problem{400, "The form cannot be read", "Go back and send it again."}
)

func (p *problem) page() g.Node {
	return document(p.text, nil, banner("bad", p.text, textEl("p", "advice", p.advice)))
}

// formState is what the form shows of an earlier attempt.
type formState struct {
	problem string
	asked   []Field
	kept    Input
	entered bool // the client ID was entered, and may be the secret: it is kept but not shown
}

// formPage is the guide and the form. After a failed attempt the form comes first: on a
// phone the message would be far down.
func formPage(o *Options, session string, s *formState) g.Node {
	title := "Connect an account"
	if o.Rotate {
		title = "Replace the client secret"
	}
	parts := []g.Node{guide(o), credentials(o, session, title, s)}
	if s.problem != "" {
		slices.Reverse(parts)
		title = "Not connected"
	}
	return document(title, o.account(), el("div", class("pair"), g.Group(parts)))
}

// guide says how to get what the form asks for.
func guide(o *Options) g.Node {
	console := g.Group{text("Open the Mimecast Administration Console. Go to "), textEl("strong", "menu", "Services > API and Platform Integrations"), text(".")}
	steps := []g.Node{
		g.Group{console, text(" Create an API 2.0 application.")},
		text("Choose the products that your tool needs, and the smallest role that allows them."),
		text("Copy the client ID and the client secret. The console shows the secret once."),
	}
	if o.Rotate {
		steps = []g.Node{
			g.Group{console, text(" Open your application.")},
			text("Create a new client secret. The console shows it once."),
			text("Paste it here. The old secret is replaced after the new one was tested."),
		}
	}
	return card("guide", "In the Mimecast console", el("ol", g.Map(steps, func(step g.Node) g.Node { return el("li", step) })))
}

// credentials is the form.
func credentials(o *Options, session, title string, s *formState) g.Node {
	button := "Connect"
	if o.Rotate {
		button = "Replace the secret"
	}
	return card("form", title,
		g.If(s.problem != "", el("div", id("problem"), class("problem"), attr("role", "alert"), textEl("p", "failed", "Not connected"), el("p", text(s.problem)))),
		g.If(o.Hint != "", textEl("p", "hint", o.Hint)),
		el("form", attr("method", "post"), attr("action", "/"), attr("autocomplete", "off"),
			el("input", attr("type", "hidden"), attr("name", sessionField), attr("value", session)),
			g.If(!o.Rotate && len(o.Regions) > 0, regionField(o.Regions, s)),
			g.If(!o.Rotate, clientIDField(s)),
			g.If(o.Rotate && o.Input.ClientID != "", el("p", text("Client ID: "), el("code", text(o.Input.ClientID)))),
			secretField(s, o.Rotate),
			el("button", attr("type", "submit"), text(button)),
		),
		textEl("p", "muted", strings.TrimSpace("Tested first, then stored "+o.StoreText)+"."),
	)
}

// field is a label, an input and what describes it.
func field(name Field, label, note string, s *formState, element string, with ...g.Node) g.Node {
	var described []string
	if note != "" {
		described = append(described, string(name)+"-note")
	}
	asked := slices.Contains(s.asked, name)
	if asked {
		described = append(described, "problem")
	}
	return el("div", class("field"),
		el("label", attr("for", string(name)), text(label)),
		el(element, id(string(name)), attr("name", string(name)),
			g.If(len(described) > 0, attr("aria-describedby", strings.Join(described, " "))),
			g.If(asked, attr("aria-invalid", "true")),
			g.If(asked && s.asked[0] == name, boolAttr("autofocus")),
			g.Group(with),
		),
		g.If(note != "", el("p", id(string(name)+"-note"), class("note"), text(note))),
	)
}

func regionField(regions []string, s *formState) g.Node {
	known := slices.Contains(regions, s.kept.Region)
	return field(Region, "Region", "", s, "select", boolAttr("required"),
		g.If(!known, el("option", attr("value", ""), boolAttr("selected"), text("Choose a region"))),
		g.Map(regions, func(region string) g.Node {
			return el("option", attr("value", region), g.If(region == s.kept.Region, boolAttr("selected")), text(region))
		}),
	)
}

const keptNote = "kept; leave empty to use it again"

func clientIDField(s *formState) g.Node {
	note, value := "", s.kept.ClientID
	if s.entered && value != "" {
		note, value = keptNote, ""
	}
	return field(ClientID, "Client ID", note, s, "input", attr("type", "text"), attr("value", value),
		attr("autocomplete", "off"), attr("spellcheck", "false"), attr("autocapitalize", "off"),
		g.If(note == "", boolAttr("required")))
}

func secretField(s *formState, rotate bool) g.Node {
	label, note := "Client secret", ""
	if rotate {
		label = "New client secret"
	}
	if !s.kept.ClientSecret.IsZero() {
		note = keptNote
	}
	return field(ClientSecret, label, note, s, "input", attr("type", "password"),
		attr("autocomplete", "off"), attr("spellcheck", "false"),
		g.If(note == "", boolAttr("required")))
}
