package connectpage_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"mimecast-proxy/connectpage"
	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/suite"
)

// These tests use a real browser.

var screenshots = flag.String("screenshots", "", "a folder that the tests put pictures of the page into")

// forbidden is part of the browser's message about a rejected request.
const forbidden = "status of 403"

// tab is a browser tab with the page.
type tab struct{ *browser.Tab }

type action = browser.Action

func open(b *browser.Browser, address string, prepare ...action) *tab {
	return &tab{b.Open(address, prepare...)}
}

// awaitText waits until the page shows a text.
func (v *tab) awaitText(text string) {
	v.Helper()
	v.Await(text, fmt.Sprintf("document.readyState === 'complete' && document.body.innerText.includes(%q)", text))
}

// enter types a text into the input with an ID.
func (v *tab) enter(id, text string) {
	v.Helper()
	browser.Eval[chromedp.Void](v.Tab, fmt.Sprintf("document.getElementById(%q).select()", id))
	v.Do(browser.Call(input.InsertText, input.InsertTextParams{Text: text}))
}

func (v *tab) picture(name string) {
	v.Helper()
	if *screenshots == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*screenshots, "connectpage-"+name+".png"), v.Screenshot(), 0o644); err != nil {
		v.Fatal(err)
	}
}

func (p *page) link() string { return p.url(connectpage.Path(p.code)) }

// untouched reports an error if an attack changed anything.
func (p *page) untouched(b *browser.Browser) {
	p.Helper()
	p.mu.Lock()
	n := len(p.inputs)
	p.mu.Unlock()
	if n != 0 {
		p.Errorf("Connect was called %d times", n)
	}
	open(b, p.link()).awaitText("API 2.0 application") // the code is still unused
}

func TestInABrowser(t *testing.T) {
	suite.Slow(t)
	t.Run("connects within 15 s", func(t *testing.T) { connectsSoon(t, browser.New(t)) }) // with the machine for itself
	for name, test := range map[string]func(*testing.T, *browser.Browser){
		"the link works in one tab":             worksInOneTab,
		"another origin's page changes nothing": hostilePage,
		"a rebound name is rejected":            reboundName,
		"is right in each state and each look":  isRightInEachState,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, browser.New(t))
		})
	}
}

// connectsSoon goes from the link to the end by keyboard, with one mistake on the way.
func connectsSoon(t *testing.T, b *browser.Browser) {
	done := make(chan struct{})
	p := serve(t, func(o *connectpage.Options) { o.Done = func() { close(done) } })
	began := time.Now()
	v := open(b, p.link(), browser.WithoutScripts())
	v.awaitText("API 2.0 application")
	browser.Eval[chromedp.Void](v.Tab, "document.getElementById('region').focus()")
	v.Do(chromedp.KeyEvent("uk"+kb.Tab), chromedp.KeyEvent(goodID+kb.Tab), chromedp.KeyEvent("wrong-secret-0123456789"+kb.Enter))
	v.awaitText("Mimecast rejects the secret.")
	v.Await("the form without ID and secret, and with the focus on the secret", // the focus comes with the first frame
		"[region.value, client_id.value, client_secret.value, document.activeElement.id].join() === 'uk,,,client_secret'")
	v.Do(chromedp.KeyEvent(goodSecret + kb.Enter))
	v.awaitText("Connected to Harbour Mills Ltd, eu; token valid for 30 minutes")
	took := time.Since(began)
	t.Logf("connected after %v", took)
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	<-done
	p.close()
	if got := browser.Eval[string](v.Tab, "location.href + document.documentElement.outerHTML"); strings.Contains(got, goodSecret) || strings.Contains(got, p.code) {
		t.Errorf("the last page shows the secret or the code:\n%s", got)
	}
	if browser.Eval[string](v.Tab, "getComputedStyle(document.querySelector('.verdict')).display") != "flex" {
		t.Error("the last page has no style")
	}
}

func worksInOneTab(t *testing.T, b *browser.Browser) {
	p := serve(t, nil)
	first := open(b, p.link())
	first.awaitText("API 2.0 application")
	second := open(b, p.link())
	second.Excuse(forbidden)
	second.awaitText("This link works once")
	second.awaitText("Another tab may have the page open. Otherwise, run the command again for a new link.")
	second.picture("used")
	if browser.Eval[bool](second.Tab, "document.querySelector('form') !== null") {
		t.Error("the second tab has a form")
	}
}

// hostile is a page of another origin. It knows the link and tries everything that such a
// page can.
const hostile = `<!doctype html><title>waits</title><body><script>
const link = LINK, root = new URL('/', link).href;
const form = (action, target) => {
  const frame = document.createElement('iframe');
  frame.name = target;
  const f = document.createElement('form');
  f.method = 'post'; f.action = action; f.target = target;
  for (const [name, value] of Object.entries({ session: 'x', region: 'us', client_id: 'attacker', client_secret: 'attacker' })) {
    const input = document.createElement('input');
    input.name = name; input.value = value;
    f.append(input);
  }
  document.body.append(frame, f);
  return new Promise((ready) => { frame.onload = ready; f.submit(); });
};
const element = (name) => new Promise((ready) => {
  const e = document.createElement(name);
  e.onload = e.onerror = ready;
  e.src = link;
  document.body.append(e);
});
const get = (mode) => fetch(link, { mode, credentials: 'include' }).then((r) => r.text(), () => '');
const post = (mode) => fetch(root, { mode, method: 'POST', credentials: 'include', body: new URLSearchParams({ client_id: 'attacker', client_secret: 'attacker' }) }).then((r) => r.text(), () => '');
Promise.all([form(root, 'a'), form(link, 'b'), element('img'), element('script'), element('iframe'), get('no-cors'), get('cors'), post('no-cors'), post('cors')])
  .then((all) => { document.title = all.some((got) => typeof got === 'string' && got !== '') ? 'read it' : 'read nothing'; });
</script>`

func hostilePage(t *testing.T, b *browser.Browser) {
	for _, host := range []string{"127.0.0.1", "evil.example"} {
		p := serve(t, nil)
		quoted, _ := json.Marshal(p.link())
		site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, strings.Replace(hostile, "LINK", string(quoted), 1))
		}))
		t.Cleanup(site.Close)
		v := open(b, strings.Replace(site.URL, "127.0.0.1", host, 1))
		v.Excuse("") // any message is expected
		v.Await("the end of the attack", "document.title !== 'waits'")
		if got := browser.Eval[string](v.Tab, "document.title"); got != "read nothing" {
			t.Errorf("%s: the page %s", host, got)
		}
		p.mu.Lock()
		visits := strings.Join(p.visits, ",")
		p.mu.Unlock()
		if strings.Count(visits, "GET") < 5 || strings.Count(visits, "POST") < 4 {
			t.Errorf("%s sent only %s", host, visits)
		}
		p.untouched(b)
	}
}

func reboundName(t *testing.T, b *browser.Browser) {
	p := serve(t, nil)
	v := open(b, strings.Replace(p.link(), "127.0.0.1", "rebound.example", 1))
	v.Excuse(forbidden)
	v.Excuse("Refused to apply style") // the stylesheet is rejected too
	v.awaitText("This name is not allowed")
	p.untouched(b)
}

// states opens the page in each of its states.
func states(t *testing.T, b *browser.Browser, see func(v *tab, state string)) {
	t.Helper()
	p := serve(t, func(o *connectpage.Options) {
		o.Profile, o.Hint = "emea", "This is a demo. Enter demo-client-id and demo-client-secret."
	})
	v := open(b, p.link())
	v.awaitText("API 2.0 application")
	see(v, "form")
	v.enter("client_id", strings.Repeat("unknown", 12))
	v.enter("client_secret", strings.Repeat("wrong", 20))
	v.Do(chromedp.KeyEvent(kb.Enter))
	v.awaitText("Mimecast does not know this client ID.")
	see(v, "error")
	v.enter("client_id", goodID)
	v.enter("client_secret", goodSecret)
	v.Do(chromedp.KeyEvent(kb.Enter))
	v.awaitText("Connected to")
	see(v, "success")
	v.Excuse(forbidden)
	v.Do(chromedp.Navigate(p.link()))
	v.awaitText("This link works once")
	see(v, "rejected")
	rotating := serve(t, func(o *connectpage.Options) {
		o.Regions, o.BaseURL, o.Profile, o.Rotate = nil, "https://api.services.mimecast.com", "emea", true
		o.Input = connectpage.Input{Region: "global", ClientID: strings.Repeat("0123456789abcdef", 4)}
	})
	v = open(b, rotating.link())
	v.awaitText("New client secret")
	see(v, "rotate")
}

// looks are the ways to show the page, each with a check.
var looks = []struct {
	name    string
	prepare []action
	check   func(v *tab, state string)
}{
	{"plain", nil, isAccessible},
	{"light", []action{browser.Prefers("prefers-color-scheme", "light"), chromedp.EmulateViewport(1100, 760)}, isLegible},
	{"dark", []action{browser.Prefers("prefers-color-scheme", "dark")}, isLegible},
	{"phone", []action{chromedp.EmulateViewport(320, 800)}, fitsAPhone},
	{"forced", []action{browser.Prefers("forced-colors", "active")}, hasBorders},
}

func isRightInEachState(t *testing.T, b *browser.Browser) {
	states(t, b, func(v *tab, state string) {
		backs := map[string]string{}
		for _, look := range looks {
			v.Do(look.prepare...)
			look.check(v, state+"-"+look.name)
			v.picture(state + "-" + look.name)
			backs[look.name] = browser.Eval[string](v.Tab, "getComputedStyle(document.body).backgroundColor")
		}
		if backs["light"] == backs["dark"] {
			t.Errorf("%s: light and dark are the same: %v", state, backs)
		}
		v.Do(browser.Call(emulation.ClearDeviceMetricsOverride, cdp.Empty{}), browser.Prefers())
	})
}

func isLegible(v *tab, state string) {
	v.Helper()
	if found := v.Illegible(browser.Contrast{Texts: 5, Bordered: "input:not([type=hidden]), select"}); len(found) > 0 {
		v.Errorf("%s: %q", state, found)
	}
}

func fitsAPhone(v *tab, state string) {
	v.Helper()
	const wide = `[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 320.5).map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))`
	const small = `[...document.querySelectorAll('button, input:not([type=hidden]), select')].filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML.slice(0, 60))`
	if width := browser.Eval[int](v.Tab, "document.documentElement.scrollWidth"); width > 320 {
		v.Errorf("%s: the page is %d wide", state, width)
	}
	if found := browser.Eval[[]string](v.Tab, wide); len(found) > 0 {
		v.Errorf("%s: wider than the phone: %q", state, found)
	}
	if found := browser.Eval[[]string](v.Tab, small); len(found) > 0 {
		v.Errorf("%s: too small for a thumb: %q", state, found)
	}
}

// roles are the minimum that a screen reader must find.
var roles = map[string]map[string]int{
	"form-plain":     {"main": 1, "banner": 1, "contentinfo": 1, "heading": 3, "combobox": 1, "textbox": 2, "button": 1, "list": 1, "listitem": 3},
	"error-plain":    {"main": 1, "heading": 3, "combobox": 1, "textbox": 2, "button": 1, "alert": 1},
	"success-plain":  {"main": 1, "heading": 3, "code": 1},
	"rejected-plain": {"main": 1, "heading": 2},
	"rotate-plain":   {"main": 1, "heading": 3, "textbox": 1, "button": 1},
}

func isAccessible(v *tab, state string) {
	v.Helper()
	counts := map[string]int{}
	for _, n := range v.Nodes() {
		counts[n.Role]++
		if slices.Contains([]string{"button", "image", "textbox", "combobox", "region", "link", "heading"}, n.Role) && n.Name == "" {
			v.Errorf("%s: a %s without a name", state, n.Role)
		}
		if n.Role == "textbox" && state == "error-plain" && n.Name == "Client ID" && !strings.Contains(n.Description, "Mimecast does not know this client ID.") {
			v.Errorf("the client ID is described as %q", n.Description)
		}
	}
	if len(roles[state]) == 0 {
		v.Fatalf("which roles has %s?", state)
	}
	for role, least := range roles[state] {
		if counts[role] < least {
			v.Errorf("%s: %d of role %s, want %d: %v", state, counts[role], role, least, counts)
		}
	}
	v.HeadingsInOrder()
	tabsThrough(v, state)
}

// tabsThrough reaches every control with the Tab key and checks that the focus is visible.
func tabsThrough(v *tab, state string) {
	v.Helper()
	browser.Eval[chromedp.Void](v.Tab, "document.activeElement.blur()")
	const controls = "document.querySelectorAll('button, input:not([type=hidden]), select')"
	reached := map[string]bool{}
	for range 2 * browser.Eval[int](v.Tab, controls+".length") {
		v.Do(chromedp.KeyEvent(kb.Tab))
		if browser.Eval[bool](v.Tab, "document.activeElement === document.body") {
			continue
		}
		id := browser.Eval[string](v.Tab, "document.activeElement.id || document.activeElement.textContent")
		reached[id] = true
		if browser.Eval[string](v.Tab, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
			v.Errorf("%s: the focus on %q cannot be seen", state, id)
		}
	}
	if want := browser.Eval[int](v.Tab, controls+".length"); len(reached) != want {
		v.Errorf("%s: Tab reaches %v of %d", state, reached, want)
	}
}

// hasBorders checks the page in forced colors, which hide backgrounds.
func hasBorders(v *tab, state string) {
	v.Helper()
	const bare = `[...document.querySelectorAll('button, input:not([type=hidden]), select, .problem, .verdict')].filter((e) => parseFloat(getComputedStyle(e).borderTopWidth) < 1).map((e) => e.outerHTML.slice(0, 60))`
	if !browser.Eval[bool](v.Tab, "matchMedia('(forced-colors: active)').matches") {
		v.Fatal("the colors are not forced")
	}
	if found := browser.Eval[[]string](v.Tab, bare); len(found) > 0 {
		v.Errorf("%s: without a border: %q", state, found)
	}
}
