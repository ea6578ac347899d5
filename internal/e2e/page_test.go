package e2e

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// These tests look at the demo's status page with a real browser: the Chromium that is
// installed on this machine.

var (
	screenshots   = flag.String("screenshots", "", "a folder of the repository that TestScreenshots puts pictures of the status page into")
	axe           = flag.String("axe", "", "the path of axe.min.js, with which the status page is checked")
	screenshotsOf = flag.Duration("screenshots-of", 3*time.Minute, "how long there is traffic before they are taken")
)

// tab is the page in a browser.
type tab struct{ *browser.Tab }

// lookAt opens a tab at an address. The page must not request anything from other servers.
func lookAt(t *testing.T, b *browser.Browser, address string, prepare ...browser.Action) *tab {
	t.Helper()
	v := &tab{b.Open(address, prepare...)}
	t.Cleanup(func() {
		for _, asked := range v.Asked() {
			if page, err := url.Parse(address); err != nil || !strings.HasPrefix(asked, page.Scheme+"://"+page.Host+"/") {
				t.Errorf("the page asks for %s", asked)
			}
		}
	})
	return v
}

// awaitText waits until a part of the page has a text.
func (v *tab) awaitText(selector, text string) {
	v.Helper()
	v.Await(text, fmt.Sprintf("[...document.querySelectorAll(%q)].some((e) => e.checkVisibility() && e.innerText.includes(%q))", selector, text))
}

// push clicks the button or link with a label.
func (v *tab) push(label string) {
	v.Helper()
	v.Await("the button "+label, fmt.Sprintf("[...document.querySelectorAll('button')].some((b) => b.textContent === %q && !b.hidden)", label))
	browser.Eval[chromedp.Void](v.Tab, fmt.Sprintf("[...document.querySelectorAll('button')].find((b) => b.textContent === %q).click()", label))
}

// rows returns the number of listed requests.
func (v *tab) rows() int {
	v.Helper()
	return browser.Eval[int](v.Tab, "document.querySelectorAll('#list tbody tr').length")
}

// demo runs the demo on free ports.
func demo(t *testing.T, more ...string) *program.Program {
	t.Helper()
	p := program.Start(t, append([]string{"PROXY_LOG_FORMAT=json", "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0"}, more...), "demo")
	p.AwaitServing()
	p.AwaitReady()
	return p
}

func TestStatusPageInABrowser(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *browser.Browser){
		"shows a request within 2 s without a reload":      showsARequestSoon,
		"the filter narrows the list":                      filters,
		"a revoked token is seen to be renewed":            revokes,
		"a dead token endpoint is named, and restored":     failsTheToken,
		"times are UTC, or local ones":                     changesTheZone,
		"a summary for a ticket is copied":                 copiesForATicket,
		"plots say their values":                           readsPlots,
		"a code leads to its meaning":                      linksCodes,
		"new tables come without a reload":                 showsNewTables,
		"forced colors hide nothing":                       worksInForcedColors,
		"axe finds nothing":                                isCleanForAxe,
		"Mimecast's slowness is not the proxy's":           slowsDown,
		"is legible in light and dark, whatever the state": isLegible,
		"fits a phone, whatever strangers ask for":         fitsAPhone,
		"strangers' paths are harmless":                    isNotInjected,
		"works without scripts":                            worksWithoutScripts,
		"can be used by keyboard":                          worksByKeyboard,
		"has names and roles for who cannot see it":        isAccessible,
		"says when it lost contact":                        losesContact,
		"the policy holds":                                 holdsThePolicy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, browser.New(t))
		})
	}
}

// The page polls every second, so a request must appear after at most two polls. The best
// of several tries counts, because a request may arrive during a poll. The time is only
// logged.
func showsARequestSoon(t *testing.T, b *browser.Browser) {
	p := demo(t)
	v := lookAt(t, b, p.AdminURL)
	browser.Eval[bool](v.Tab, "window.kept = true")
	fewest := 100
	for i := range 5 {
		path := fmt.Sprintf("/identity/whoami/%d", i)
		began, asked := time.Now(), len(v.Asked())
		p.Must("GET", path, "")
		v.awaitText("#list .path", path)
		fewest = min(fewest, len(v.Asked())-asked)
		t.Logf("shown after %v", time.Since(began))
	}
	if fewest > 2 {
		t.Errorf("the page asked %d times before it showed a request", fewest)
	}
	if !browser.Eval[bool](v.Tab, "window.kept === true") {
		t.Error("the page was loaded again")
	}
	if total := browser.Eval[string](v.Tab, "document.querySelector('.part .note:last-child').textContent"); total != "5 since the start" {
		t.Errorf("%q", total)
	}
}

func filters(t *testing.T, b *browser.Browser) {
	p := demo(t)
	for range 3 {
		p.Must("GET", "/identity/whoami", "")
		p.Must("GET", "/no/such/thing", "")
	}
	v := lookAt(t, b, p.AdminURL)
	v.Await("every request", "document.querySelectorAll('#list tbody tr').length === 6")
	browser.Eval[chromedp.Void](v.Tab, "document.getElementById('q').focus()")
	v.Do(chromedp.KeyEvent("WHOAMI 200"))
	v.Await("the ones that are looked for", "document.querySelectorAll('#list tbody tr').length === 3")
	if text := browser.Eval[string](v.Tab, "document.getElementById('list').innerText"); strings.Contains(text, "/no/such") || !strings.Contains(text, "3 of the last 6") {
		t.Error(text)
	}
	p.Must("GET", "/no/such/thing", "")
	p.Must("GET", "/identity/whoami", "")
	v.Await("a new one", "document.querySelectorAll('#list tbody tr').length === 4")
	if where := browser.Eval[string](v.Tab, "location.search"); where != "?q=WHOAMI+200" {
		t.Errorf("the filter is not in the address: %s", where)
	}
	browser.Eval[chromedp.Void](v.Tab, "q.value = ''; show.value = 'wrong'; show.dispatchEvent(new Event('input', { bubbles: true }))")
	v.Await("what went wrong", "document.querySelectorAll('#list tbody tr').length === 4 && !document.getElementById('list').innerText.includes('whoami')")
	v.push("Hold the list")
	p.Must("GET", "/no/such/thing", "")
	v.Await("the count goes on", "document.querySelector('.part .note:last-child').textContent === '9 since the start'")
	if n := v.rows(); n != 4 {
		t.Errorf("a list that is held shows %d requests, want 4", n)
	}
}

func revokes(t *testing.T, b *browser.Browser) {
	v := lookAt(t, b, demo(t).AdminURL)
	v.awaitText("#health", "All is well")
	v.push("Revoke the token")
	v.awaitText("#acted", "Revoke the token: done.")
	v.push("Send requests")
	// They are sent concurrently. A late one may already use the new token.
	v.Await("three requests that passed, and which of them were retried",
		"document.querySelectorAll('#list tbody tr.fine').length === 3 && [...document.querySelectorAll('#list .status .tag')].some((c) => c.innerText === 'retried')")
	v.awaitText("#token", " resolved by a new token")
	v.awaitText("#health", "All is well: 3 requests")
}

func failsTheToken(t *testing.T, b *browser.Browser) {
	v := lookAt(t, b, demo(t).AdminURL)
	v.push("Fail the token endpoint")
	v.push("Revoke the token")
	v.awaitText("#actions", "On now.")
	v.push("Send requests")
	v.Await("three failures", "document.querySelectorAll('#list tbody tr.failed').length === 3")
	v.awaitText("#health", "The token endpoint issues no token.")
	v.awaitText("#health", "Down · Mimecast")
	v.awaitText("#health", "3 of 3 requests affected in the last 15 minutes")
	v.Await("the announcement", "document.getElementById('said').textContent.includes('The token endpoint issues no token.')")
	v.awaitText("#token", "rejected by Mimecast")
	v.awaitText("#token", "Last failed token request")
	v.awaitText(".part.down", "Mimecast")
	v.awaitText("#wrong", "token_unavailable")
	if badges := browser.Eval[string](v.Tab, "[...document.querySelectorAll('#list .badge')].map((b) => b.textContent).join()"); badges != "503,503,503" {
		t.Error(badges)
	}
	v.push("Restore the token endpoint")
	v.awaitText("#token", "resolved since")
	v.push("Send requests")
	v.Await("three that pass", "document.querySelectorAll('#list tbody tr.fine').length === 3")
	v.awaitText("#health.ok", "All is well")
	v.awaitText("#health", "Recovered")
	v.awaitText("#history", "token_unavailable")
}

func slowsDown(t *testing.T, b *browser.Browser) {
	v := lookAt(t, b, demo(t).AdminURL)
	v.push("Slow Mimecast down")
	v.awaitText("#actions", "Make Mimecast fast again")
	v.push("Send requests")
	v.awaitText("#running", "waiting for Mimecast's response")
	v.push("Send requests")
	v.Await("slow requests", "[...document.querySelectorAll('#list .took')].filter((c) => parseFloat(c.innerText) >= 6 && c.innerText.endsWith(' s')).length === 6")
	v.awaitText("#health", "Mimecast takes more than 5 s")
	if own := browser.Eval[string](v.Tab, "document.querySelectorAll('.part')[1].querySelector('.figure').innerText"); !strings.HasSuffix(own, " ms") {
		t.Errorf("the proxy %s", own)
	}
	v.push("Make Mimecast fast again")
	v.awaitText("#actions", "Slow Mimecast down")
}

// spoil creates at least one of everything that the page can show.
func spoil(t *testing.T, p *program.Program) {
	t.Helper()
	for range 4 {
		p.Must("GET", "/siem/v1/events/cg?types=receipt", "")
		p.Must("GET", "/no/such/thing", "")
		p.Must("DELETE", "/policy/x", "")
	}
	for _, action := range []string{"fail-token", "revoke", "ask", "slow"} {
		push(t, p, action)
	}
}

// prefers emulates light or dark. Reduced motion avoids colors in transition.
func prefers(scheme string) browser.Action {
	return browser.Prefers("prefers-color-scheme", scheme, "prefers-reduced-motion", "reduce")
}

func isLegible(t *testing.T, b *browser.Browser) {
	p := demo(t, "PROXY_ALLOW=GET /,POST /api/")
	spoil(t, p)
	backs := map[string]bool{}
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#list", "/policy/x")
	for _, scheme := range []string{"light", "dark"} {
		v.Do(prefers(scheme))
		backs[browser.Eval[string](v.Tab, "getComputedStyle(document.body).backgroundColor")] = true
		for _, state := range []string{"ok", "degraded", "down"} { // the demo is in one of these states
			change := fmt.Sprintf("document.querySelectorAll('details').forEach((d) => d.open = true); document.querySelectorAll('.health, .part, span.state').forEach((e) => e.className = e.className.replace(/\\b(ok|degraded|down)\\b/, %q))", state)
			if found := v.Illegible(browser.Contrast{Texts: 200, Bordered: "button, input, select, textarea", First: change}); len(found) > 0 {
				t.Errorf("%s, %s: %q", scheme, state, found)
			}
		}
	}
	if len(backs) != 2 {
		t.Errorf("light and dark are the same: %v", backs)
	}
}

// stranger sends requests that no legitimate client sends.
func stranger(t *testing.T, p *program.Program) (sent int) {
	t.Helper()
	for _, target := range []string{
		`/<script>window.hacked=1</script>`, `/%3Cscript%3Ewindow.hacked=1%3C/script%3E`, `/"onmouseover="window.hacked=1"x="`, `/'><img/src=x/onerror=window.hacked=1>`,
		`/{{.Account}}/${window.hacked=1}`, `/%E2%80%AEgpj.exe`, "/\u202egpj.exe\u2066", `/%00%07%1b[31m%0d%0aX-Injected:%20yes`, `/&lt;b&gt;`, `/` + strings.Repeat("a", 5000), `/%F0%9F%92%A9/%ff%fe`,
	} {
		conn, err := net.Dial("tcp", p.Listen)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: <i>%d</i>\r\nConnection: close\r\n\r\n", target, sent)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		res.Body.Close()
		conn.Close()
		sent++
	}
	return sent
}

func isNotInjected(t *testing.T, b *browser.Browser) {
	p := demo(t)
	sent := stranger(t, p)
	v := lookAt(t, b, p.AdminURL)
	v.Await("every request", fmt.Sprintf("document.querySelectorAll('#list tbody tr').length === %d", sent))
	if got := browser.Eval[int](v.Tab, "document.querySelectorAll('#list :is(script, img, i, a:not(.code), [onmouseover])').length"); got != 0 {
		t.Errorf("%d elements of a stranger's", got)
	}
	if browser.Eval[bool](v.Tab, "'hacked' in window") {
		t.Error("a stranger's script ran")
	}
	text := browser.Eval[string](v.Tab, "document.body.innerText")
	for _, want := range []string{"/%3Cscript%3Ewindow.hacked=1%3C/script%3E", "/%E2%80%AEgpj.exe", "/%00%07%1b[31m%0d%0aX-Injected:%20yes", "aaaa…"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q to be read", want)
		}
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r == '\u202e' || r == '\u2066' || r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
		t.Errorf("%q is on the page", text[i:min(i+20, len(text))])
	}
}

func fitsAPhone(t *testing.T, b *browser.Browser) {
	p := demo(t, "PROXY_ALLOW=GET /,POST /api/", "PROXY_ALOW=unknown_and_"+strings.Repeat("long", 50))
	sent := stranger(t, p)
	spoil(t, p)
	v := lookAt(t, b, p.AdminURL, chromedp.EmulateViewport(360, 740))
	v.Await("every request", fmt.Sprintf("document.querySelectorAll('#list tbody tr').length === %d", sent+15))
	browser.Eval[chromedp.Void](v.Tab, "document.querySelectorAll('details').forEach((d) => d.open = true)")
	if width := browser.Eval[int](v.Tab, "document.documentElement.scrollWidth"); width > 360 {
		t.Errorf("the page is %d wide", width)
	}
	const wide = `[...document.querySelectorAll('body *')].filter((e) => !e.closest('.unseen, .skip') && e.getBoundingClientRect().right > 360.5).map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))`
	if found := browser.Eval[[]string](v.Tab, wide); len(found) > 0 {
		t.Errorf("wider than the phone: %q", found)
	}
	v.awaitText("#parts", "affected")
	const spilt = `[...document.querySelectorAll('.part *')].filter((e) => e.getBoundingClientRect().right > e.closest('.part').getBoundingClientRect().right).map((e) => e.textContent)`
	if found := browser.Eval[[]string](v.Tab, spilt); len(found) > 0 {
		t.Errorf("outside of its card: %q", found)
	}
	const small = `[...document.querySelectorAll('button, input, select, summary')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML.slice(0, 60))`
	if found := browser.Eval[[]string](v.Tab, small); len(found) > 0 {
		t.Errorf("too small for a thumb: %q", found)
	}
}

func worksWithoutScripts(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/identity/whoami", "")
	p.Must("GET", "/no/such/thing", "")
	v := lookAt(t, b, p.AdminURL, browser.WithoutScripts())
	v.awaitText("#list", "Rejected as wrong")
	v.awaitText("footer", "Without scripts")
	if v.rows() != 2 || browser.Eval[bool](v.Tab, "document.body.classList.contains('scripted')") {
		t.Error("the scripts run, or the list is not there")
	}
	browser.Eval[chromedp.Void](v.Tab, "document.getElementById('q').focus()")
	v.Do(chromedp.KeyEvent("whoami" + kb.Enter))
	v.Await("the filtered list", "location.search.includes('q=whoami') && document.querySelectorAll('#list tbody tr').length === 1")
	v.push("Revoke the token")
	v.Await("the page after the button", "location.pathname === '/' && location.search === ''")
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}
	p.Stderr.Await(t, "the retry", func(text string) bool { return strings.Contains(text, `"retried":true`) })
}

func worksByKeyboard(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/identity/whoami", "")
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#list", "whoami")
	var reached []string
	for range 80 {
		v.Do(chromedp.KeyEvent(kb.Tab))
		id := browser.Eval[string](v.Tab, "document.activeElement.id || document.activeElement.textContent.slice(0, 40)")
		if len(reached) > 0 && id == reached[0] {
			break
		}
		reached = append(reached, id)
		// The focused element must be visibly focused.
		if browser.Eval[bool](v.Tab, "document.activeElement !== document.body && getComputedStyle(document.activeElement).outlineStyle === 'none'") {
			t.Errorf("the focus on %q cannot be seen", id)
		}
	}
	for _, want := range []string{"To the list of requests", "zone", "action-0", "action-3", "plot-requests", "plot-latency", "values-summary", "token-events-summary", "q", "show", "hold", "defaults-summary", "copy", "ticket-summary", "codes-summary", "/api/status"} {
		if !slices.Contains(reached, want) {
			t.Errorf("Tab does not reach %q: %q", want, reached)
		}
	}
	browser.Eval[chromedp.Void](v.Tab, "document.getElementById('token-events-summary').focus()")
	v.Do(chromedp.KeyEvent(kb.Enter))
	p.Must("GET", "/identity/whoami/again", "")
	v.awaitText("#list", "/again") // the page was refreshed
	p.Must("GET", "/identity/whoami/twice", "")
	v.awaitText("#list", "/twice")
	if !browser.Eval[bool](v.Tab, "document.activeElement.id === 'token-events-summary' && document.getElementById('token-events').open") {
		t.Errorf("the refresh took the focus to %q", browser.Eval[string](v.Tab, "document.activeElement.outerHTML.slice(0, 100)"))
	}
}

func isAccessible(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/identity/whoami", "")
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#list", "whoami")
	for _, width := range []int64{1280, 360} { // on a phone, the table becomes a list
		v.Do(chromedp.EmulateViewport(width, 800))
		roles := map[string]int{}
		for _, node := range v.Nodes() {
			roles[node.Role]++
			if slices.Contains([]string{"button", "image", "slider", "textbox", "searchbox", "combobox", "table", "region", "link", "heading"}, node.Role) && node.Name == "" {
				t.Errorf("%d: a %s without a name", width, node.Role)
			}
		}
		for role, least := range map[string]int{"main": 1, "heading": 9, "table": 1, "row": 1, "cell": 5, "image": 1, "slider": 2, "searchbox": 1, "combobox": 1, "region": 5, "status": 1, "search": 1} {
			if roles[role] < least {
				t.Errorf("%d: %d of role %s, want %d: %v", width, roles[role], role, least, roles)
			}
		}
		v.HeadingsInOrder()
	}
}

// inZone emulates a browser in a time zone.
func inZone(name string) browser.Action {
	return browser.Call(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: name})
}

func changesTheZone(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/identity/whoami", "")
	v := lookAt(t, b, p.AdminURL, inZone("Asia/Kolkata"))
	v.awaitText("#list", "whoami")
	const first = "document.querySelector('#list time')"
	at, err := time.Parse(time.RFC3339, browser.Eval[string](v.Tab, first+".dateTime"))
	if err != nil {
		t.Fatal(err)
	}
	utc, local := at.UTC().Format(time.DateTime), at.UTC().Add(5*time.Hour+30*time.Minute).Format(time.DateTime)
	shows := func(want, zone string) {
		t.Helper()
		v.Await(want, fmt.Sprintf("%s.textContent === %q && [...document.querySelectorAll('.zone')].every((z) => z.textContent === %q)", first, want, zone))
	}
	shows(utc, "UTC")
	v.push("Local time")
	shows(local, "local time")
	p.Must("GET", "/identity/whoami/later", "")
	v.awaitText("#list", "later") // a refresh keeps the zone
	browser.Eval[chromedp.Void](v.Tab, "window.old = true; location.reload()")
	v.Await("the page anew", "!window.old && document.body?.classList.contains('scripted')")
	v.Await("local times", "document.getElementById('zone').ariaPressed === 'true' && document.querySelector('#list .zone').textContent === 'local time'")
	v.push("Local time")
	v.Await("UTC again", "document.querySelector('#list .zone').textContent === 'UTC'")
}

func copiesForATicket(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/no/such/thing", "")
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#list", "/no/such")
	clipboard := func(write string) {
		browser.Eval[chromedp.Void](v.Tab, fmt.Sprintf("Object.defineProperty(navigator, 'clipboard', { configurable: true, value: { writeText: %s } })", write))
	}
	clipboard("async (text) => { window.copied = text; }")
	v.push("Copy for a ticket")
	v.awaitText("#copied", "Copied.")
	for _, want := range []string{"Mimecast Proxy ", "Health: ok", "GET /no/such/thing: 404 request_refused", "proxy "} {
		if text := browser.Eval[string](v.Tab, "window.copied"); !strings.Contains(text, want) {
			t.Errorf("no %q: %s", want, text)
		}
	}
	clipboard("async () => { throw new Error('not allowed'); }")
	v.push("Copy for a ticket")
	v.awaitText("#copied", "Selected: copy it")
	if !browser.Eval[bool](v.Tab, "document.activeElement.id === 'ticket-text' && document.activeElement.selectionEnd === document.activeElement.value.length && document.activeElement.selectionStart === 0") {
		t.Error("the text is not selected")
	}
}

func readsPlots(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/identity/whoami", "")
	v := lookAt(t, b, p.AdminURL)
	v.Await("a value", "document.querySelector('#values [data-step]')")
	browser.Eval[chromedp.Void](v.Tab, "document.getElementById('plot-requests').focus()")
	const reading = "document.getElementById('plot-requests-reading').textContent"
	v.Do(chromedp.KeyEvent(kb.Home))
	v.Await("the first step", reading+".endsWith('UTC: no requests')")
	v.Do(chromedp.KeyEvent(kb.End))
	for range 10 { // the request was a moment ago
		if strings.Contains(browser.Eval[string](v.Tab, reading), "1 request, proxy ") {
			break
		}
		v.Do(chromedp.KeyEvent(kb.ArrowLeft))
	}
	v.Await("the step with the request", reading+".includes(': 1 request, proxy ') && document.querySelector('#plot-requests .cursor')")
	if !browser.Eval[bool](v.Tab, "document.activeElement.getAttribute('aria-valuetext') === "+reading) {
		t.Error("a screen reader cannot read it")
	}
	browser.Eval[chromedp.Void](v.Tab, "document.activeElement.blur()")
	v.Await("nothing once the focus is gone", reading+" === ''")
	browser.Eval[chromedp.Void](v.Tab, `(() => {
		const box = document.getElementById('plot-latency').getBoundingClientRect();
		document.getElementById('plot-latency').dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: box.left + 1, clientY: box.top + 5 }));
	})()`)
	if text := browser.Eval[string](v.Tab, "document.getElementById('plot-latency-reading').textContent"); !strings.HasSuffix(text, "UTC: no requests") {
		t.Errorf("the pointer shows %q", text)
	}
}

func linksCodes(t *testing.T, b *browser.Browser) {
	p := demo(t)
	p.Must("GET", "/no/such/thing", "")
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#wrong", "request_refused")
	browser.Eval[chromedp.Void](v.Tab, "document.querySelector('#wrong a.code').click()")
	v.awaitText("#code-request_refused", "Rejected as wrong (4xx). See the status")
	// A page scrolls by whole pixels, so that half a one may be missing.
	v.Await("it in view", "(() => { const box = document.getElementById('code-request_refused').getBoundingClientRect(); return Math.round(box.top) >= 0 && Math.round(box.bottom) <= innerHeight; })()")
}

func showsNewTables(t *testing.T, b *browser.Browser) {
	p := demo(t, "PROXY_ALLOW=GET /identity/,POST /api/")
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#routes", "GET /identity/")
	v.awaitText("#settings", "PROXY_ALLOW")
	if browser.Eval[bool](v.Tab, "document.getElementById('quotas') !== null") {
		t.Fatal("there is a quota before a request")
	}
	p.Must("GET", "/identity/whoami", "")
	p.Must("GET", "/not/allowed", "")
	v.Await("the route's count", "[...document.querySelectorAll('#routes tbody tr')].some((r) => r.innerText.includes('GET /identity/') && /\\b1\\b/.test(r.cells[1].innerText))")
	v.awaitText("#wrong", "route_not_allowed")
	control := regexp.MustCompile(`http://\S+/revoke`).FindString(p.Stdout.String())
	res, err := p.Client.PostForm(strings.TrimSuffix(control, "revoke")+"settings", url.Values{"quota": {"/api/audit/"}, "calls": {"10"}, "per": {"10m"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for range 9 {
		p.Must("POST", "/api/audit/get-audit-events", `{"data":[{}]}`)
	}
	v.awaitText("#quotas", "/api/audit/get-audit-events")
	v.awaitText("#quotas", "1 of 10 nearly used up")
}

// everything opens a demo with at least one of everything that the page can show.
func everything(t *testing.T, b *browser.Browser, prepare ...browser.Action) *tab {
	t.Helper()
	p := demo(t, "PROXY_ALLOW=GET /,POST /api/")
	spoil(t, p)
	v := lookAt(t, b, p.AdminURL, prepare...)
	v.awaitText("#list", "/policy/x")
	browser.Eval[chromedp.Void](v.Tab, "document.querySelectorAll('details').forEach((d) => d.open = true)")
	return v
}

func worksInForcedColors(t *testing.T, b *browser.Browser) {
	v := everything(t, b, browser.Prefers("forced-colors", "active"))
	if !browser.Eval[bool](v.Tab, "matchMedia('(forced-colors: active)').matches") {
		t.Fatal("the colors are not forced")
	}
	const bare = `[...document.querySelectorAll('button, input, select, textarea, .card, .health, .part, .badge, .warning')].filter((e) => e.checkVisibility() && parseFloat(getComputedStyle(e).borderTopWidth) < 1).map((e) => e.outerHTML.slice(0, 60))`
	if found := browser.Eval[[]string](v.Tab, bare); len(found) > 0 {
		t.Errorf("without a border: %q", found)
	}
	const unseen = `[...document.querySelectorAll('.lamp')].filter((e) => getComputedStyle(e).backgroundColor === getComputedStyle(document.body).backgroundColor).length`
	if n := browser.Eval[int](v.Tab, unseen); n > 0 {
		t.Errorf("%d lights cannot be seen", n)
	}
	// Each status light must have its state next to it as a word.
	const mute = `[...document.querySelectorAll('.lamp')].filter((e) => !/\b(ok|degraded|down|affected)\b/i.test(e.parentElement.innerText)).length`
	if n := browser.Eval[int](v.Tab, mute); n > 0 {
		t.Errorf("%d lights are without a word", n)
	}
}

// isCleanForAxe needs axe-core, which is not part of the repository:
//
//	go test ./internal/e2e -run 'StatusPage.*/axe' -axe axe.min.js
func isCleanForAxe(t *testing.T, b *browser.Browser) {
	if *axe == "" {
		t.Skip("only with -axe")
	}
	script, err := os.ReadFile(*axe)
	if err != nil {
		t.Fatal(err)
	}
	v := everything(t, b)
	for name, look := range map[string][]browser.Action{
		"light":         {prefers("light"), chromedp.EmulateViewport(1280, 900)},
		"dark":          {prefers("dark"), chromedp.EmulateViewport(1280, 900)},
		"forced colors": {browser.Prefers("forced-colors", "active"), chromedp.EmulateViewport(1280, 900)},
		"phone":         {prefers("light"), chromedp.EmulateViewport(360, 740)},
		"dark phone":    {prefers("dark"), chromedp.EmulateViewport(360, 740)},
	} {
		v.Do(look...)
		browser.Eval[chromedp.Void](v.Tab, string(script)+"; window.found = null; axe.run().then((r) => { window.found = r.violations.flatMap((f) => f.nodes.map((n) => f.id + ': ' + n.html.slice(0, 100) + ' ' + n.failureSummary)); })")
		v.Await("axe", "window.found")
		if found := browser.Eval[[]string](v.Tab, "window.found"); len(found) > 0 {
			t.Errorf("%s: %s", name, strings.Join(found, "\n"))
		}
	}
}

func losesContact(t *testing.T, b *browser.Browser) {
	p := demo(t)
	v := lookAt(t, b, p.AdminURL)
	v.awaitText("#health", "All is well")
	_ = p.Cmd.Process.Kill()
	v.awaitText("[role=alert]", "No contact with the proxy since")
	v.Complaints() // discard connection errors
}

// holdsThePolicy also shows that the other tests would notice a violation.
func holdsThePolicy(t *testing.T, b *browser.Browser) {
	v := &tab{b.Open(demo(t).AdminURL)}
	v.awaitText("#health", "All is well")
	browser.Eval[chromedp.Void](v.Tab, `(() => {
		const script = document.createElement('script');
		script.textContent = 'window.hacked = 1';
		document.body.append(script);
		const image = new Image();
		image.src = 'http://127.0.0.1:9/elsewhere.png';
		document.body.append(image);
	})()`)
	deadline := time.Now().Add(program.Patience)
	heard := ""
	for strings.Count(heard, "Content Security Policy") < 2 && time.Now().Before(deadline) {
		heard += strings.Join(v.Complaints(), "\n")
		time.Sleep(20 * time.Millisecond)
	}
	if strings.Count(heard, "Content Security Policy") < 2 || browser.Eval[bool](v.Tab, "'hacked' in window") {
		t.Errorf("an inline script or a foreign image was let through: %s", heard)
	}
}

func TestForeignPageCannotBreakTheDemo(t *testing.T) {
	t.Parallel()
	p := demo(t)
	for _, c := range []struct{ method, path, header, value string }{
		{"POST", "/demo/revoke", "Origin", "https://evil.example"},
		{"POST", "/demo/revoke", "Origin", "null"},
		{"POST", "/demo/slow/undo", "Sec-Fetch-Site", "cross-site"},
		{"POST", "/demo/revoke", "Host", "rebound.example:9090"},
		{"GET", "/", "Host", "rebound.example:9090"},
		{"GET", "/api/status", "Host", "rebound.example:9090"},
		{"GET", "/api/status", "Origin", "https://evil.example"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, p.AdminURL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(c.header, c.value)
		if c.header == "Host" {
			req.Host = c.value
		}
		res, err := p.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%+v: %d", c, res.StatusCode)
		}
	}
	push(t, p, "revoke") // without a page's headers it works
}

func TestStatusPageTellsNoSecret(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	p := program.Serve(t, sim)
	const marker = "marked4d1c"
	p.Must("POST", "/api/audit/get-audit-events?token="+marker+"1", `{"data":[{"x":"`+marker+`2"}]}`, "Authorization", "Bearer "+marker+"3", "X-Mc-Arg", marker+"4", "Cookie", marker+"5", "User-Agent", marker+"6")
	echo, err := simulator.NamedFault("token-echo")
	if err != nil {
		t.Fatal(err)
	}
	sim.AddFault(echo)
	sim.RevokeTokens()
	if res, _ := p.Must("GET", "/identity/whoami?"+url.Values{"q": {marker + "7"}}.Encode(), ""); res.StatusCode != http.StatusBadGateway { // the token is revoked, and no new one is available
		t.Fatalf("%d", res.StatusCode)
	}
	secrets := []string{marker, simulator.DefaultClientSecret, simulator.DefaultClientID}
	for _, r := range sim.Requests() {
		if _, token, ok := strings.Cut(r.Header.Get("Authorization"), "Bearer "); ok {
			secrets = append(secrets, token)
		}
	}
	if len(secrets) < 4 {
		t.Fatal("no token was seen")
	}
	for _, path := range []string{"/", "/api/status"} {
		res, err := p.Client.Get(p.AdminURL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var body strings.Builder
		if _, err := bufio.NewReader(res.Body).WriteTo(&body); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(body.String(), "get-audit-events") {
			t.Errorf("%s does not show the request", path)
		}
		for _, s := range secrets {
			if strings.Contains(body.String(), s) {
				t.Errorf("%s shows %q", path, s)
			}
		}
	}
}

// TestScreenshots takes the pictures for the docs:
//
//	go test ./internal/e2e -run TestScreenshots -timeout 10m -screenshots docs/images
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("only with -screenshots")
	}
	b := browser.New(t)
	p := demo(t, "PROXY_ALLOW=GET /,POST /api/")
	control := regexp.MustCompile(`http://\S+/revoke`).FindString(p.Stdout.String())
	fault := func(form url.Values) {
		res, err := p.Client.PostForm(strings.TrimSuffix(control, "revoke")+"faults", form)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	fault(url.Values{"path": {"/identity/"}, "skip": {"300"}, "count": {"25"}, "status": {"503"}})
	fault(url.Values{"delay": {"60ms"}})
	seconds := int(screenshotsOf.Seconds())
	for i := range seconds {
		for range 1 + i*7%5 + i%45/15 {
			p.Must("GET", "/identity/whoami", "")
		}
		p.Must("POST", "/api/audit/get-audit-events", `{"data":[{}]}`)
		if i%10 == 0 {
			p.Must("GET", "/siem/v1/events/cg?types=receipt", "")
		}
		if i%70 == 20 {
			p.Must("DELETE", "/policy-management/v1/policies/7", "")
		}
		if i%150 == 120 || i == seconds-30 {
			push(t, p, "revoke")
		}
		time.Sleep(time.Second)
	}
	picture := func(name string, width, height int64, prepare ...browser.Action) {
		v := lookAt(t, b, p.AdminURL, append(prepare, chromedp.EmulateViewport(width, height))...)
		v.awaitText("#list", "/api/audit")
		if err := os.WriteFile(filepath.Join(program.Root(), *screenshots, name), shrink(t, v.Screenshot()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	picture("status-light.png", 1200, 1500, prefers("light"))
	push(t, p, "fail-token")
	push(t, p, "revoke")
	for range 20 {
		push(t, p, "ask")
	}
	picture("status-dark.png", 1200, 1500, prefers("dark"))
	picture("status-phone.png", 390, 1200, prefers("light"))
}

func push(t *testing.T, p *program.Program, action string) {
	t.Helper()
	res, err := p.Client.Post(p.AdminURL+"/demo/"+action, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d", action, res.StatusCode)
	}
}

// shrink reduces an image to 256 colors: the most frequent ones that differ from each
// other. This reduces its size to a third with hardly a visible difference.
func shrink(t *testing.T, shot []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	frame := from.Bounds()
	counts := map[color.NRGBA]int{}
	for y := frame.Min.Y; y < frame.Max.Y; y++ {
		for x := frame.Min.X; x < frame.Max.X; x++ {
			counts[color.NRGBAModel.Convert(from.At(x, y)).(color.NRGBA)]++
		}
	}
	apart := func(a, b uint8) int { return max(int(a), int(b)) - min(int(a), int(b)) }
	var palette color.Palette
	for _, c := range slices.SortedFunc(maps.Keys(counts), func(a, b color.NRGBA) int { return counts[b] - counts[a] }) {
		alike := func(d color.Color) bool {
			o := d.(color.NRGBA)
			return apart(c.R, o.R)+apart(c.G, o.G)+apart(c.B, o.B) < 24
		}
		if len(palette) < 256 && (len(palette) < 24 || !slices.ContainsFunc(palette, alike)) {
			palette = append(palette, c) // the most frequent colors may be similar: surfaces are
		}
	}
	to := image.NewPaletted(frame, palette)
	draw.Draw(to, frame, from, frame.Min, draw.Src)
	var small bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&small, to); err != nil {
		t.Fatal(err)
	}
	return small.Bytes()
}
