package connectpage_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"mimecast-proxy/connectpage"
	"mimecast-proxy/internal/program"
)

// These tests look at the page with a real browser, which is whichever Chromium this
// machine has. For it, every name under example is this machine.

var screenshots = flag.String("screenshots", "", "a folder that the tests put pictures of the page into")

// browser is a Chromium that tests open tabs in.
type browser struct{ ctx context.Context }

func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("there is no Chromium here: install chromium to test the page in a browser")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-features", "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable"), chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.Flag("no-sandbox", true)) // Chromium's does not work for root
	}
	ctx, closeAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(closeAllocator)
	ctx, closeBrowser := chromedp.NewContext(ctx)
	t.Cleanup(closeBrowser)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return &browser{ctx}
}

// tab is a page that is being looked at.
type tab struct {
	*testing.T
	ctx context.Context

	mu      sync.Mutex
	faults  []string // what the browser complained of
	excused []string // parts of complaints that a test expects
}

type action = chromedp.Action[chromedp.Void]

// look opens a tab at an address. Prepare is done first.
func (b *browser) look(t *testing.T, address string, prepare ...action) *tab {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	t.Cleanup(closeTab)
	v := &tab{T: t, ctx: ctx}
	if err := chromedp.Listen(ctx, v.hear); err != nil {
		t.Fatal(err)
	}
	v.do(append(append([]action{call(cdplog.Enable, cdp.Empty{})}, prepare...), chromedp.Navigate(address))...)
	t.Cleanup(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, fault := range v.faults {
			if !slices.ContainsFunc(v.excused, func(part string) bool { return strings.Contains(fault, part) }) {
				t.Errorf("the browser complains: %s", fault)
			}
		}
	})
	return v
}

// hear collects what the browser says; it must not wait for anything.
func (v *tab) hear(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *cdplog.EventEntryAdded:
		v.faults = append(v.faults, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		v.faults = append(v.faults, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		v.faults = append(v.faults, fmt.Sprintf("console.%s", e.Type))
	}
}

// forbidden is how the browser complains of a rejected request.
const forbidden = "status of 403"

// excuse expects complaints, whenever they come.
func (v *tab) excuse(part string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.excused = append(v.excused, part)
}

func (v *tab) do(actions ...action) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	// The tab lives as long as the context of its first use.
	if err := chromedp.Do(v.ctx); err != nil {
		v.Fatal(err)
	}
	if err := chromedp.Do(ctx, actions...); err != nil {
		v.Fatal(err)
	}
}

// eval returns what a script's expression is worth on the page.
func eval[T any](v *tab, expression string) T {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		v.Fatalf("%s: %v", expression, err)
	}
	return got
}

// await waits until an expression is true on the page.
func (v *tab) await(expression string) {
	v.Helper()
	program.Await(v, expression, func() bool {
		ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
		defer cancel()
		// What fails may have met a page that was just being left.
		met, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		return met && err == nil
	})
}

// awaitText waits until the page has a text.
func (v *tab) awaitText(text string) {
	v.Helper()
	v.await(fmt.Sprintf("document.readyState === 'complete' && document.body.innerText.includes(%q)", text))
}

// enter types into the input of an ID.
func (v *tab) enter(id, text string) {
	v.Helper()
	eval[chromedp.Void](v, fmt.Sprintf("document.getElementById(%q).select()", id))
	v.do(chromedp.KeyEvent(text))
}

func (v *tab) picture(name string) {
	v.Helper()
	if *screenshots == "" {
		return
	}
	shot, err := chromedp.Run(v.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		v.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, "connectpage-"+name+".png"), shot, 0o644); err != nil {
		v.Fatal(err)
	}
}

// call is an action of the browser.
func call[P, R any](command cdp.Command[P, R], params P) action {
	return chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, command, params)
		return err
	})
}

// prefers emulates media features, such as prefers-color-scheme dark.
func prefers(feature, value string) action {
	return call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: feature, Value: value}}})
}

func withoutScripts() action {
	return call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

func (p *page) link() string { return p.url(connectpage.Path(p.code)) }

// untouched reports an attack that changed something.
func (p *page) untouched(b *browser) {
	p.Helper()
	p.mu.Lock()
	n := len(p.inputs)
	p.mu.Unlock()
	if n != 0 {
		p.Errorf("Connect was called %d times", n)
	}
	b.look(p.T, p.link()).awaitText("API 2.0 application") // the code was not used
}

func TestInABrowser(t *testing.T) {
	program.Slow(t)
	b := openBrowser(t) // one at a time: keys go to the tab in front
	for name, test := range map[string]func(*testing.T, *browser){
		"connects within 15 s":                         connectsSoon,
		"the link works in one tab":                    worksInOneTab,
		"another origin's page changes nothing":        hostilePage,
		"a rebound name is rejected":                   reboundName,
		"is legible in light and dark":                 isLegible,
		"fits a phone":                                 fitsAPhone,
		"has names and roles for who cannot see it":    isAccessible,
		"has borders where the system sets the colors": forcedColors,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// connectsSoon goes from the link to the end by keyboard, with a mistake on the way.
func connectsSoon(t *testing.T, b *browser) {
	done := make(chan struct{})
	p := serve(t, func(o *connectpage.Options) { o.Done = func() { close(done) } })
	began := time.Now()
	v := b.look(t, p.link(), withoutScripts())
	v.awaitText("API 2.0 application")
	eval[chromedp.Void](v, "document.getElementById('region').focus()")
	v.do(chromedp.KeyEvent("uk"+kb.Tab), chromedp.KeyEvent(goodID+kb.Tab), chromedp.KeyEvent("wrong-secret-0123456789"+kb.Enter))
	v.awaitText("Mimecast rejects the secret.")
	if got := eval[string](v, "[region.value, client_id.value, client_secret.value, document.activeElement.id].join()"); got != "uk,,,client_secret" {
		t.Errorf("the form came back as %s", got)
	}
	v.do(chromedp.KeyEvent(goodSecret + kb.Enter))
	v.awaitText("Connected to Harbour Mills Ltd, eu; token valid for 30 minutes")
	took := time.Since(began)
	t.Logf("connected after %v", took)
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	<-done
	p.close()
	if got := eval[string](v, "location.href + document.documentElement.outerHTML"); strings.Contains(got, goodSecret) || strings.Contains(got, p.code) {
		t.Errorf("the last page shows the secret or the code:\n%s", got)
	}
	if eval[string](v, "getComputedStyle(document.querySelector('.verdict')).display") != "flex" {
		t.Error("the last page has no style")
	}
}

func worksInOneTab(t *testing.T, b *browser) {
	p := serve(t, nil)
	first := b.look(t, p.link())
	first.awaitText("API 2.0 application")
	second := b.look(t, p.link())
	second.excuse(forbidden)
	second.awaitText("This link works once")
	second.awaitText("Another tab may have the page open. Otherwise, run the command again for a new link.")
	second.picture("used")
	if eval[bool](second, "document.querySelector('form') !== null") {
		t.Error("the second tab has a form")
	}
}

// hostile is a page that tries what a page of another origin can, with the right link.
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

func hostilePage(t *testing.T, b *browser) {
	for _, host := range []string{"127.0.0.1", "evil.example"} {
		p := serve(t, nil)
		quoted, _ := json.Marshal(p.link())
		site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, strings.Replace(hostile, "LINK", string(quoted), 1))
		}))
		t.Cleanup(site.Close)
		v := b.look(t, strings.Replace(site.URL, "127.0.0.1", host, 1))
		v.excuse("") // whatever it is
		v.await("document.title !== 'waits'")
		if got := eval[string](v, "document.title"); got != "read nothing" {
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

func reboundName(t *testing.T, b *browser) {
	p := serve(t, nil)
	v := b.look(t, strings.Replace(p.link(), "127.0.0.1", "rebound.example", 1))
	v.excuse(forbidden)
	v.excuse("Refused to apply style") // which is rejected too
	v.awaitText("This name is not allowed")
	p.untouched(b)
}

// states opens the page in each of its states.
func states(t *testing.T, b *browser, see func(v *tab, state string), prepare ...action) {
	t.Helper()
	p := serve(t, func(o *connectpage.Options) {
		o.Profile, o.Hint = "emea", "This is a demo. Enter demo-client-id and demo-client-secret."
	})
	v := b.look(t, p.link(), prepare...)
	v.awaitText("API 2.0 application")
	see(v, "form")
	v.enter("client_id", strings.Repeat("unknown", 12))
	v.enter("client_secret", strings.Repeat("wrong", 20)+kb.Enter)
	v.awaitText("Mimecast does not know this client ID.")
	see(v, "error")
	v.enter("client_id", goodID)
	v.enter("client_secret", goodSecret+kb.Enter)
	v.awaitText("Connected to")
	see(v, "success")
	v.excuse(forbidden)
	v.do(chromedp.Navigate(p.link()))
	v.awaitText("This link works once")
	see(v, "rejected")
	rotating := serve(t, func(o *connectpage.Options) {
		o.Regions, o.BaseURL, o.Profile, o.Rotate = nil, "https://api.services.mimecast.com", "emea", true
		o.Input = connectpage.Input{Region: "global", ClientID: strings.Repeat("0123456789abcdef", 4)}
	})
	v = b.look(t, rotating.link(), prepare...)
	v.awaitText("New client secret")
	see(v, "rotate")
}

// illegible returns the texts whose contrast is less than WCAG 2 asks for at level AA:
// 4.5, or 3 for large ones.
const illegible = `(() => {
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const ratio = (one, other) => {
    const a = luminance(one), b = luminance(other);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest('option, script')) continue;
    texts++;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    const got = ratio(parse(style.color).slice(0, 3), behind(e));
    if (got < (large ? 3 : 4.5)) found.push(walker.currentNode.data.trim().slice(0, 40) + ': ' + got.toFixed(2));
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select')) {
    const got = ratio(parse(getComputedStyle(e).borderTopColor).slice(0, 3), behind(e.parentElement));
    if (got < 3) found.push('the border of ' + e.id + ': ' + got.toFixed(2));
  }
  return texts < 5 ? ['only ' + texts + ' texts'] : found;
})()`

func isLegible(t *testing.T, b *browser) {
	backs := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		states(t, b, func(v *tab, state string) {
			backs[eval[string](v, "getComputedStyle(document.body).backgroundColor")] = true
			if found := eval[[]string](v, illegible); len(found) > 0 {
				t.Errorf("%s, %s: %q", scheme, state, found)
			}
			v.picture(state + "-" + scheme)
		}, prefers("prefers-color-scheme", scheme), chromedp.EmulateViewport(1100, 760))
	}
	if len(backs) != 2 {
		t.Errorf("light and dark are the same: %v", backs)
	}
}

func fitsAPhone(t *testing.T, b *browser) {
	const wide = `[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 320.5).map((e) => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40))`
	const small = `[...document.querySelectorAll('button, input:not([type=hidden]), select')].filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML.slice(0, 60))`
	states(t, b, func(v *tab, state string) {
		if width := eval[int](v, "document.documentElement.scrollWidth"); width > 320 {
			t.Errorf("%s: the page is %d wide", state, width)
		}
		if found := eval[[]string](v, wide); len(found) > 0 {
			t.Errorf("%s: wider than the phone: %q", state, found)
		}
		if found := eval[[]string](v, small); len(found) > 0 {
			t.Errorf("%s: too small for a thumb: %q", state, found)
		}
		v.picture(state + "-phone")
	}, chromedp.EmulateViewport(320, 800))
}

func isAccessible(t *testing.T, b *browser) {
	roles := map[string]map[string]int{
		"form":     {"main": 1, "banner": 1, "contentinfo": 1, "heading": 3, "combobox": 1, "textbox": 2, "button": 1, "list": 1, "listitem": 3},
		"error":    {"main": 1, "heading": 3, "combobox": 1, "textbox": 2, "button": 1, "alert": 1},
		"success":  {"main": 1, "heading": 3, "code": 1},
		"rejected": {"main": 1, "heading": 2},
		"rotate":   {"main": 1, "heading": 3, "textbox": 1, "button": 1},
	}
	states(t, b, func(v *tab, state string) {
		nodes := accessibleNodes(v)
		counts := map[string]int{}
		for _, n := range nodes {
			counts[n.role]++
			if slices.Contains([]string{"button", "image", "textbox", "combobox", "region", "link", "heading"}, n.role) && n.name == "" {
				t.Errorf("%s: a %s without a name", state, n.role)
			}
			if n.role == "textbox" && state == "error" && n.name == "Client ID" && !strings.Contains(n.description, "Mimecast does not know this client ID.") {
				t.Errorf("the client ID is described as %q", n.description)
			}
		}
		for role, least := range roles[state] {
			if counts[role] < least {
				t.Errorf("%s: %d of role %s, want %d: %v", state, counts[role], role, least, counts)
			}
		}
		levels := eval[[]int](v, "[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
		for i, level := range levels {
			if i == 0 && level != 1 || i > 0 && level > levels[i-1]+1 {
				t.Errorf("%s: the headings skip a level: %v", state, levels)
			}
		}
		tabsThrough(v, state)
	})
}

type accessibleNode struct{ role, name, description string }

func accessibleNodes(v *tab) (all []accessibleNode) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		v.Fatal(err)
	}
	text := func(value *accessibility.Value) (s string) {
		if value != nil {
			_ = json.Unmarshal(value.Value, &s)
		}
		return s
	}
	for _, node := range tree.Nodes {
		if !node.Ignored {
			all = append(all, accessibleNode{text(node.Role), text(node.Name), text(node.Description)})
		}
	}
	return all
}

// tabsThrough reaches every control by the Tab key, and sees the focus on it.
func tabsThrough(v *tab, state string) {
	v.Helper()
	eval[chromedp.Void](v, "document.activeElement.blur()")
	const controls = "document.querySelectorAll('button, input:not([type=hidden]), select')"
	reached := map[string]bool{}
	for range 2 * eval[int](v, controls+".length") {
		v.do(chromedp.KeyEvent(kb.Tab))
		if eval[bool](v, "document.activeElement === document.body") {
			continue
		}
		id := eval[string](v, "document.activeElement.id || document.activeElement.textContent")
		reached[id] = true
		if eval[string](v, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
			v.Errorf("%s: the focus on %q cannot be seen", state, id)
		}
	}
	if want := eval[int](v, controls+".length"); len(reached) != want {
		v.Errorf("%s: Tab reaches %v of %d", state, reached, want)
	}
}

// forcedColors has the system's colors, without backgrounds.
func forcedColors(t *testing.T, b *browser) {
	const bare = `[...document.querySelectorAll('button, input:not([type=hidden]), select, .problem, .verdict')].filter((e) => parseFloat(getComputedStyle(e).borderTopWidth) < 1).map((e) => e.outerHTML.slice(0, 60))`
	states(t, b, func(v *tab, state string) {
		if !eval[bool](v, "matchMedia('(forced-colors: active)').matches") {
			t.Fatal("the colors are not forced")
		}
		if found := eval[[]string](v, bare); len(found) > 0 {
			t.Errorf("%s: without a border: %q", state, found)
		}
		v.picture(state + "-forced")
	}, prefers("forced-colors", "active"))
}
