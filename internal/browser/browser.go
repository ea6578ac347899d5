// Package browser lets tests look at pages with a real browser: the Chromium that is
// installed on this machine.
//
// Chromium takes seconds to start, so all tests of a package share one process. Each test
// has a separate profile with no shared cookies, connections or cache. Every name under
// example and internal resolves to this machine.
package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"mimecast-proxy/internal/program"
)

// M runs tests and then stops the browser, if one was started. Use it in TestMain.
type M struct{ *testing.M }

// Run runs the tests and returns their exit code.
func (m M) Run() int {
	defer func() { chromium.end() }()
	return m.M.Run()
}

// process is the Chromium process that all tests share.
type process struct {
	mu  sync.Mutex
	ctx context.Context //nolint:containedctx // chromedp represents a browser as a context
	end func()
}

var chromium = process{end: func() {}}

// started returns the context of the process, and starts it if needed.
func (p *process) started() (context.Context, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx != nil {
		return p.ctx, nil
	}
	path := find()
	ctx, endAllocator := chromedp.NewExecAllocator(context.Background(), options(path)...)
	ctx, end := chromedp.NewContext(ctx)
	p.end = func() { end(); endAllocator() }
	if err := chromedp.Do(ctx); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	p.ctx = ctx
	return ctx, nil
}

func find() string {
	// The shell, which has no windows, takes half of the CPU time for the same page.
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func options(path string) []chromedp.ExecAllocatorOption {
	all := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-features", "HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,SpareRendererForSitePerProcess"), chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1, MAP *.internal 127.0.0.1"))
	if os.Geteuid() == 0 {
		all = append(all, chromedp.Flag("no-sandbox", true)) // Chromium's sandbox does not work as root
	}
	return all
}

// Browser is a browser profile in which a test opens tabs.
type Browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // see process
	id  cdp.BrowserContextID
}

// Need skips the test if Chromium is not installed.
func Need(t *testing.T) {
	t.Helper()
	if find() == "" {
		t.Skip("there is no Chromium here: install chromium to test in a browser")
	}
}

// New returns a new profile, which is removed when t ends. It skips the test if Chromium is
// not installed.
func New(t *testing.T) *Browser {
	t.Helper()
	Need(t)
	ctx, err := chromium.started()
	if err != nil {
		t.Fatal(err)
	}
	process := chromedp.FromContext(ctx).Browser
	made, err := cdp.Call(ctx, process, target.CreateBrowserContext, target.CreateBrowserContextParams{})
	if err != nil {
		t.Fatal(err)
	}
	id := made.BrowserContextID
	t.Cleanup(func() {
		bounded, cancel := context.WithTimeout(ctx, program.Patience)
		defer cancel()
		if _, err := cdp.Call(bounded, process, target.DisposeBrowserContext, target.DisposeBrowserContextParams{BrowserContextID: id}); err != nil {
			t.Error(err)
		}
	})
	return &Browser{t: t, ctx: ctx, id: id}
}
