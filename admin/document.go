package admin

import (
	"cmp"

	g "maragu.dev/gomponents"
	"maragu.dev/gomponents/html"
)

// The page is built of nodes, which escape every text. A template would call methods by
// name, and then the linker keeps every exported method of the program.

// document is the page: the status, its requests filtered by f, the settings, and the
// buttons.
func document(s *Status, f filter, settings []Setting, actions []Action) g.Node {
	return html.Doctype(el("html", attr("lang", "en"),
		head(stateName(s.Health.State)+": "+headline(&s.Health.Judgment)),
		el("body",
			el("a", class("skip"), attr("href", "#requests"), text("To the list of requests")),
			header(s, len(actions) > 0),
			el("main",
				announcements(),
				healthBanner(s),
				stageCards(s),
				demoCard(actions),
				trafficCard(s),
				el("div", class("pair"), tokenCard(s), problemsCard(s)),
				// A part of which page.js takes over what was not there at first.
				el("div", id("tables"), class("tables"), dataLive(), runningCard(s), accountsCard(s), clientsCard(s), routesCard(s), quotasCard(s)),
				historyCard(s),
				ticketCard(s),
				settingsCard(settings, s.Now),
				requestsCard(s, f),
				codesCard(),
			),
			footer(s),
		),
	))
}

func head(title string) g.Node {
	return el("head",
		el("meta", attr("charset", "utf-8")),
		el("meta", attr("name", "viewport"), attr("content", "width=device-width, initial-scale=1")),
		el("meta", attr("name", "color-scheme"), attr("content", "light dark")),
		el("title", text(title+" Mimecast Proxy")),
		el("link", attr("rel", "icon"), attr("href", assetPaths["icon.svg"]), attr("type", "image/svg+xml")),
		el("link", attr("rel", "stylesheet"), attr("href", assetPaths["page.css"])),
		el("script", attr("src", assetPaths["page.js"]), boolAttr("defer")),
	)
}

// header shows the account and the addresses.
func header(s *Status, demo bool) g.Node {
	known := func(name, value string) g.Node { return g.If(value != "", definition(name, text(value))) }
	return el("header", class("top"),
		el("h1",
			text("Mimecast Proxy "), textEl("span", "version", s.Version),
			g.If(demo, g.Group{text(" "), textEl("span", "tag", "demo")}),
		),
		el("dl", class("account"),
			definition("Client ID", text(cmp.Or(s.Account.ClientID, "unknown"))),
			known("Region", s.Account.Region),
			known("API", s.Account.BaseURL),
			known("Credentials from", s.Account.Credentials),
			known("Listens at", s.Listen),
		),
		el("button", id("zone"), attr("type", "button"), attr("aria-pressed", "false"), boolAttr("hidden"), text("Local time")),
	)
}

// announcements are empty until page.js has something to say.
func announcements() g.Node {
	return g.Group{
		el("p", id("lost"), class("lost"), attr("role", "alert"), boolAttr("hidden"),
			text("No contact with the proxy since "), el("span", id("lost-since")), text(". The page below is old.")),
		el("p", id("said"), class("unseen"), attr("role", "status"), attr("aria-live", "polite")),
	}
}

func footer(s *Status) g.Node {
	return el("footer",
		el("p", id("as-of"), dataLive(), text("As of "), stamp(s.Now), text(", up "+formatDuration(s.Now.Sub(s.Started))+".")),
		el("p",
			text("The same as JSON: "), el("a", attr("href", "/api/status"), text("/api/status")),
			text(". For Prometheus: "), el("a", attr("href", "/metrics"), text("/metrics")), text("."),
		),
		el("noscript", el("p", text("Without scripts the page stays as it was loaded: reload it to see more."))),
	)
}
