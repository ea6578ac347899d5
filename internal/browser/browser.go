// Package browser lets tests look at pages with a real browser, which is whichever
// Chromium this machine has. It is no part of the program.
//
// A start takes seconds, so the tests of a binary share one process. Each has its own
// profile in it: no cookie, connection or cache is shared. Every name
// under example and internal is this machine.
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

// M runs tests and then ends the browser, if one was started. TestMain needs it.
type M struct{ *testing.M }

// Run implements the interface that testing.M implements.
func (m M) Run() int {
	defer func() { chromium.end() }()
	return m.M.Run()
}

// process is a Chromium that all tests share.
type process struct {
	mu  sync.Mutex
	ctx context.Context //nolint:containedctx // chromedp's handle of a browser is a context
	end func()
}

var chromium = process{end: func() {}}

// started returns the context of the process, which is started if it is not.
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
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
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
		all = append(all, chromedp.Flag("no-sandbox", true)) // Chromium's does not work for root
	}
	return all
}

// Browser is a profile that a test opens tabs in.
type Browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // see process
	id  cdp.BrowserContextID
}

// Need skips the test where there is no Chromium.
func Need(t *testing.T) {
	t.Helper()
	if find() == "" {
		t.Skip("there is no Chromium here: install chromium to test in a browser")
	}
}

// New returns a new profile, which ends with t. The test is skipped where there is
// no Chromium.
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
