//go:build unix

package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

var pageLink = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\?code=\S+`)

// Through the demo, tests the connect page from the link to the first response.
func TestDemoConnectsOnThePageOfARealBrowser(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	b := browser.New(t)
	home := t.TempDir()
	environ := []string{"HOME=" + home, "TMPDIR=" + home, "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json"}
	p := program.Start(t, environ, "demo", "connect", "--web", "--no-browser")
	link := ""
	p.Stdout.Await(t, "the link", func(text string) bool { link = pageLink.FindString(text); return link != "" })
	began := time.Now()
	v := lookAt(t, b, link)
	v.Await("the form", "document.getElementById('client_id')")
	v.Await("the focus", "document.getElementById('client_id').select() === undefined")
	v.Do(chromedp.KeyEvent(simulator.DefaultClientID+kb.Tab), chromedp.KeyEvent(simulator.DefaultClientSecret+kb.Enter))
	v.awaitText("body", "Connected to Harbour Mills Ltd, eu; token valid for 30 minutes")
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("connecting took %v", took)
	}
	p.AwaitServing().AwaitReady()
	if res, _ := p.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if text := p.Stderr.String(); !strings.Contains(text, `"credentials":"a private file, profile default"`) || strings.Contains(text, "code=") {
		t.Errorf("the log: %s", text)
	}
	p.Signal(os.Interrupt)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 0 {
		t.Error("the demo left", left, err)
	}
}

// A fresh clone needs only these commands: git clone, cd, demo connect, curl. The
// secret is typed once.
func TestDemoConnectsOnATerminal(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	home := t.TempDir()
	environ := []string{"HOME=" + home, "TMPDIR=" + home, "TERM=xterm", "PROXY_LISTEN=127.0.0.1:0", "PROXY_ADMIN_LISTEN=127.0.0.1:0", "PROXY_LOG_FORMAT=json"}
	x := program.StartOnTerminal(t, environ, "demo", "connect")
	x.AwaitText("Enter the client ID " + simulator.DefaultClientID + " and the client secret " + simulator.DefaultClientSecret)
	x.Answer("Client ID (its beginning is shown): ", simulator.DefaultClientID)
	x.Answer("secret (not shown): ", simulator.DefaultClientSecret)
	x.AwaitText("Connected to Harbour Mills Ltd, eu")
	x.AwaitText("The demo starts now.")
	address := ""
	x.Screen.Await(t, "the address", func(text string) bool {
		_, after, ok := strings.Cut(text, "Proxy    http://")
		address, _, _ = strings.Cut(after, "\r")
		return ok && address != ""
	})
	x.Listen, x.URL = address, "http://"+address
	if res, _ := x.Must("GET", "/identity/whoami", ""); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	x.Signal(os.Interrupt)
	if code := x.Exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if !x.ModesRestored() {
		t.Error("the terminal is not as it was")
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 0 {
		t.Error("the demo left", left, err)
	}
}
