package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"mimecast-proxy/internal/program"
)

// Tab is an open page. An error that the browser reports fails the test, unless the test
// expects it.
type Tab struct {
	*testing.T
	ctx context.Context //nolint:containedctx // chromedp represents a tab as a context

	mu       sync.Mutex
	faults   []string // errors that the browser reported
	excused  []string // substrings of expected errors
	requests []string // requested URLs
}

// Action is an action in a tab.
type Action = chromedp.Action[chromedp.Void]

// Open runs the prepare actions and opens a tab at address. The tab is closed when the test
// ends.
func (b *Browser) Open(address string, prepare ...Action) *Tab {
	b.t.Helper()
	v := b.blank()
	v.Do(append(prepare, chromedp.Navigate(address))...)
	return v
}

// Visit opens a tab for a hostile page. It expects any browser error, and does not wait
// until the page is loaded.
func (b *Browser) Visit(address string) *Tab {
	b.t.Helper()
	v := b.blank()
	v.Excuse("")
	v.Do(Call(page.Navigate, page.NavigateParams{URL: address}))
	return v
}

func (b *Browser) blank() *Tab {
	b.t.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx, chromedp.WithExistingBrowserContext(b.id))
	b.t.Cleanup(closeTab)
	v := &Tab{T: b.t, ctx: ctx}
	if err := chromedp.Listen(ctx, v.hear); err != nil {
		v.Fatal(err)
	}
	// The tab lives as long as the context of its first use.
	if err := chromedp.Do(ctx); err != nil {
		v.Fatal(err)
	}
	// Keys go to the focused tab. Emulated focus makes every tab act as the focused one.
	v.Do(Call(network.Enable, network.EnableParams{}), Call(cdplog.Enable, cdp.Empty{}), Call(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}))
	v.Cleanup(func() {
		for _, fault := range v.Complaints() {
			v.Errorf("the browser complains: %s", fault)
		}
	})
	return v
}

// hear records the browser's events. It must not block.
func (v *Tab) hear(event any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e := event.(type) {
	case *cdplog.EventEntryAdded:
		v.faults = append(v.faults, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		v.faults = append(v.faults, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		v.faults = append(v.faults, fmt.Sprintf("console.%s", e.Type))
	case *network.EventRequestWillBeSent:
		v.requests = append(v.requests, e.Request.URL)
	}
}

// Excuse marks errors that contain part as expected, whenever they occur.
func (v *Tab) Excuse(part string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.excused = append(v.excused, part)
}

// Complaints returns the unexpected errors that the browser reported since the last call.
func (v *Tab) Complaints() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := slices.DeleteFunc(v.faults, func(fault string) bool {
		return slices.ContainsFunc(v.excused, func(part string) bool { return strings.Contains(fault, part) })
	})
	v.faults = nil
	return all
}

// Asked returns the URLs that the page requested.
func (v *Tab) Asked() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.requests)
}

// Do runs actions in order. It fails the test if one fails.
func (v *Tab) Do(actions ...Action) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		v.Fatal(err)
	}
}

// Eval returns the value of a script expression on the page.
func Eval[T any](v *Tab, expression string) T {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		v.Fatalf("%s: %v", expression, err)
	}
	return got
}

// Await waits until a script expression is true on the page.
func (v *Tab) Await(what, expression string) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	program.AwaitWithin(v, 2*program.Patience, what, func() bool {
		// An error is not final: the page may have been navigating.
		met, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if ctx.Err() != nil {
			v.Fatalf("%s: never on the page (%v):\n%s", what, err, Eval[string](v, "document.body.innerText"))
		}
		return met && err == nil
	})
}

// Screenshot returns a PNG image of the page.
func (v *Tab) Screenshot() []byte {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		v.Fatal(err)
	}
	return shot
}

// Node is a part of the page as a screen reader sees it.
type Node struct{ Role, Name, Description string }

// Nodes returns the page as a screen reader sees it.
func (v *Tab) Nodes() (all []Node) {
	v.Helper()
	ctx, cancel := context.WithTimeout(v.ctx, program.Patience)
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		v.Fatal(err)
	}
	text := func(value *accessibility.Value) (s string) {
		if value != nil {
			_ = json.Unmarshal(value.Value, &s) // a value that is not a string stays empty
		}
		return s
	}
	for _, node := range tree.Nodes {
		if !node.Ignored {
			all = append(all, Node{text(node.Role), text(node.Name), text(node.Description)})
		}
	}
	return all
}

// HeadingsInOrder fails the test if a heading is more than one level below the previous
// one.
func (v *Tab) HeadingsInOrder() {
	v.Helper()
	levels := Eval[[]int](v, "[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
	for i, level := range levels {
		if i == 0 && level != 1 || i > 0 && level > levels[i-1]+1 {
			v.Errorf("the headings skip a level: %v", levels)
		}
	}
}

// Call returns an action that calls a method of the Chrome DevTools Protocol.
func Call[P, R any](command cdp.Command[P, R], params P) Action {
	return chromedp.Func(func(ctx context.Context, s *chromedp.Target) error {
		_, err := cdp.Call(ctx, s, command, params)
		return err
	})
}

// Prefers returns an action that emulates media features, given as pairs of names and
// values such as prefers-color-scheme and dark. It replaces earlier ones.
func Prefers(features ...string) Action {
	params := emulation.SetEmulatedMediaParams{}
	for pair := range slices.Chunk(features, 2) {
		params.Features = append(params.Features, &emulation.MediaFeature{Name: pair[0], Value: pair[1]})
	}
	return Call(emulation.SetEmulatedMedia, params)
}

// WithoutScripts returns an action that disables scripts.
func WithoutScripts() Action {
	return Call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}
