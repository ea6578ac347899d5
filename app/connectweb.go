package app

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"mimecast-proxy/connectpage"
)

const (
	// pageLifetime bounds how long the page waits for the user.
	pageLifetime = 10 * time.Minute
	// pageGrace bounds the wait for open browser connections at the end.
	pageGrace = time.Second
)

// connectOnPage asks on a web page at a free loopback port until the input works.
func (p Env) connectOnPage(ctx context.Context, c *connector, hint string) (done connectpage.Connected, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.lifetime, fmt.Errorf("no connection was made within %v: %s", c.lifetime, c.unchanged()))
	defer cancel()
	l, err := p.listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return done, fmt.Errorf("opening a port for the page: %w", err)
	}
	var mu sync.Mutex // guards done
	finished := make(chan struct{})
	o := c.page(l.Addr().String(), hint)
	o.Connect = func(request context.Context, in connectpage.Input) (connectpage.Connected, error) {
		request, stop := joinContexts(request, ctx)
		defer stop()
		result, err := c.connect(request, in)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			done = result
		}
		return result, err
	}
	o.Done = func() { close(finished) }
	s := &http.Server{
		Handler: connectpage.Handler(o), ErrorLog: log.New(p.Stderr, "", 0),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * connectTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	p.showPage(c, "http://"+o.Address+connectpage.Path(o.Code))
	select {
	case <-finished:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), pageGrace)
	defer stop()
	if s.Shutdown(end) != nil {
		_ = s.Close() // the page was already sent
	}
	if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	mu.Lock()
	defer mu.Unlock()
	return done, err
}

// joinContexts returns a context derived from a that also ends when b does.
func joinContexts(a, b context.Context) (context.Context, context.CancelFunc) {
	joined, cancel := context.WithCancel(a)
	stop := context.AfterFunc(b, cancel)
	return joined, func() { stop(); cancel() }
}

// page returns the options of the web page.
func (c *connector) page(address, hint string) connectpage.Options {
	o := connectpage.Options{
		Address: address, Code: connectpage.NewCode(), Regions: regions(), Input: c.known,
		Rotate: c.Rotate && c.known.ClientID != "", Profile: c.Profile, StoreText: c.target.where, Hint: strings.TrimSpace(hint),
	}
	if c.base != nil {
		o.Regions, o.BaseURL = nil, c.base.String()
	}
	return o
}

// showPage opens the page in a browser, and prints its address.
func (p Env) showPage(c *connector, url string) {
	where := "Open this page in a browser on this machine:"
	environ := without(p.Environ, named(credentialVariables...))
	if p.userEnviron != nil {
		environ = without(p.userEnviron, named(credentialVariables...))
	}
	if !c.NoBrowser && openBrowser(environ, url) == nil {
		where = "A page opens in your browser. If it does not, open:"
	}
	fmt.Fprintln(p.messages(c.ConnectOptions), where+"\n\n  "+url+"\n\nThe link works once, within "+formatMinutes(c.lifetime)+". To stop, press Ctrl-C.")
}

// openBrowser opens a page in the user's browser, which outlives this process. environ must
// contain no credentials.
func openBrowser(environ []string, url string) error {
	command := []string{"xdg-open", url}
	switch {
	case runtime.GOOS == "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	case runtime.GOOS == "darwin":
		command = []string{"open", url}
	case !slices.ContainsFunc(environ, named("DISPLAY", "WAYLAND_DISPLAY")):
		return errors.New("there is no desktop")
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // a system command with our own URL
	cmd.Env = environ
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
