//go:build unix

package attack

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "embed"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// These tests use a real browser, so that the requests are those that browsers really send.

//go:embed page.html
var page string

// attempts are the requests that page.html makes to each target.
var attempts = []string{"image", "script", "frame", "blind", "blindpost", "read", "readwith", "preflight", "json", "form", "socket", "events", "beacon"}

// target is a base URL that a page attacks, with paths below its name.
type target struct {
	Name string `json:"name"`
	Base string `json:"base"`
}

// orders are instructions to a page.
type orders struct {
	Targets []target `json:"targets"`
	Admin   struct {
		Base  string      `json:"base"`
		Paths [][2]string `json:"paths"` // attempt and path
	} `json:"admin"`
	// Collector is the URL to which the page reports.
	Collector string `json:"collector"`
	// Rebind makes the page first ask the collector to rebind the page's own host name.
	Rebind bool `json:"rebind"`
	// Navigate is the URL to which the page finally navigates.
	Navigate string `json:"navigate"`
}

// site is the attacker's web server.
type site struct {
	*httptest.Server
	port    string
	orders  orders // set when visit begins
	rebind  func()
	reports chan map[string]string

	mu   sync.Mutex
	text string // the page with its orders filled in
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{reports: make(chan map[string]string, 1)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.SetKeepAlivesEnabled(false) // a rebound name is only looked up for a new connection
	s.Start()
	t.Cleanup(s.Close)
	_, s.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	s.orders.Collector = s.URL
	s.orders.Targets, s.orders.Admin.Paths = []target{}, [][2]string{} // encode empty lists, not null
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	text := s.text
	s.mu.Unlock()
	switch r.URL.Path {
	case "/":
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, text)
	case "/rebind":
		s.rebind()
	case "/report":
		var report map[string]string
		if err := json.NewDecoder(r.Body).Decode(&report); err != nil {
			panic(err)
		}
		s.reports <- report
	default:
		http.NotFound(w, r)
	}
}

// visit opens the site in a browser, by a host name. The browser resolves every name
// under example and internal to this machine. visit returns the page's report.
func (s *site) visit(t *testing.T, host string) map[string]string {
	t.Helper()
	text, err := json.Marshal(s.orders)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.text = strings.Replace(page, "CONFIG", string(text), 1)
	s.mu.Unlock()
	browser.New(t).Visit("http://" + host + "/")
	select {
	case report := <-s.reports:
		t.Logf("the page at %s saw %q", host, report)
		return report
	case <-time.After(2 * program.Patience):
		t.Fatal("the page does not report")
		return nil
	}
}

// newBrowsedStand returns a stand for an attack by a browser. Browsers also send requests
// such as for an icon, so counters are compared with the log. The log does not contain
// rejections of the admin listener.
func newBrowsedStand(t *testing.T, environ ...string) *stand {
	t.Helper()
	browser.Need(t)
	s := newStand(t, environ...)
	s.browsed = true
	return s
}

// line is the result of a request, from the log or the list of recent requests.
type line struct {
	Path, Method, Error string
	Status              int
	Suppressed          int // requests with the same result that have no separate line
}

// awaitLines waits until every path was requested. It returns the requests under the
// target's name from the list of recent requests. The log is incomplete: it has at most
// one line a second for rejected ones.
func awaitLines(t *testing.T, p *program.Program, name string, paths []string) (lines []line) {
	t.Helper()
	program.Await(t, "a request for each path under "+name, func() bool {
		lines = slices.DeleteFunc(recentRequests(t, p), func(l line) bool { return !strings.HasPrefix(l.Path, "/"+name+"/") })
		return !slices.ContainsFunc(paths, func(path string) bool {
			return !slices.ContainsFunc(lines, func(l line) bool { return l.Path == path })
		})
	})
	return lines
}

func recentRequests(t *testing.T, p *program.Program) (lines []line) {
	t.Helper()
	res, err := http.Get("http://" + p.Admin + "/api/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var status struct {
		Requests []struct {
			Path, Method, Fault string
			Status              int
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	for _, r := range status.Requests {
		lines = append(lines, line{Path: r.Path, Method: r.Method, Error: r.Fault, Status: r.Status})
	}
	return lines
}

// accessLines returns the request lines of a log.
func accessLines(text string) (lines []line) {
	for raw := range strings.Lines(text) {
		var l line
		if json.Unmarshal([]byte(raw), &l) == nil && l.Path != "" {
			l.Error, _, _ = strings.Cut(l.Error, ":") // only the code; a text for people follows
			lines = append(lines, l)
		}
	}
	return lines
}

func pathsOf(name string) (paths []string) {
	for _, a := range attempts {
		paths = append(paths, "/"+name+"/"+a)
	}
	return paths
}

// forwarder is a listener whose target an attacker can change. The port stays the same, as
// with DNS rebinding.
type forwarder struct {
	address string
	to      atomic.Pointer[string]
}

func forward(t *testing.T, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f := &forwarder{address: l.Addr().String()}
	f.to.Store(&to)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.carry(conn)
		}
	}()
	return f
}

// carry chooses the target at the first byte, because browsers open connections in advance.
func (f *forwarder) carry(in net.Conn) {
	defer in.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(in, first); err != nil {
		return
	}
	out, err := net.Dial("tcp", *f.to.Load())
	if err != nil {
		return
	}
	defer out.Close()
	if _, err := out.Write(first); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
}

// attackAdmin are the attempts at the admin listener. It excludes /metrics and the probes,
// which are open to all.
var attackAdmin = [][2]string{{"read", "/api/status"}, {"blind", "/api/status"}, {"frame", "/api/status"}, {"blindpost", "/quitquitquit"}, {"form", "/quitquitquit"}, {"socket", "/api/status"}}

// unread checks that a page's report contains nothing from Mimecast or the admin listener.
func unread(t *testing.T, report map[string]string) {
	t.Helper()
	for attempt, saw := range report {
		if strings.HasPrefix(saw, "200") || strings.Contains(saw, "account") || strings.Contains(saw, "token_events") || saw == "open" || saw == "load" {
			t.Errorf("%s: the page saw %q", attempt, saw)
		}
	}
}

// holdRefused checks that all of a page's requests were rejected with the same code.
func (s *stand) holdRefused(code event.Code, name string, paths []string, report map[string]string) {
	s.t.Helper()
	unread(s.t, report)
	for _, l := range awaitLines(s.t, s.Program, name, paths) {
		if l.Status != 403 || l.Error != string(code) {
			s.t.Errorf("%+v", l)
		}
	}
	if asked := s.arrived(); len(asked) > 0 {
		s.t.Errorf("%+v arrived", asked)
	}
	if got := send(s.t, s.Admin, request("GET /readyz", local), 1); len(got) != 1 || got[0].status != 200 {
		s.t.Errorf("is it drained? %+v", got)
	}
}

func TestHostilePageInABrowserReachesNothing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	for name, hosts := range map[string]struct{ page, proxy string }{
		"otherport": {"127.0.0.1", "127.0.0.1"},
		"othername": {"evil.example", "localhost"},
		"local":     {"localhost", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newBrowsedStand(t, "PROXY_QUIT_ENDPOINT=true")
			page := newSite(t)
			at := func(address string) string { return "http://" + strings.Replace(address, "127.0.0.1", hosts.proxy, 1) }
			page.orders.Targets = []target{{name, at(s.Listen)}}
			page.orders.Admin.Base, page.orders.Admin.Paths = at(s.Admin), attackAdmin
			page.orders.Navigate = at(s.Listen) + "/" + name + "/navigate"
			report := page.visit(t, net.JoinHostPort(hosts.page, page.port))
			s.denied[string(event.OriginNotAllowed)] += float64(len(attackAdmin))
			s.holdRefused(event.OriginNotAllowed, name, append(pathsOf(name), "/"+name+"/navigate"), report)
		})
	}
}

// rebound returns a site whose page rebinds its host name to address. It also returns the
// host and port, which stay the same.
func rebound(t *testing.T, address string) (page *site, host string) {
	t.Helper()
	page = newSite(t)
	name := forward(t, page.Listener.Addr().String())
	page.orders.Rebind = true
	page.rebind = func() { name.to.Store(&address) }
	return page, strings.Replace(name.address, "127.0.0.1", "evil.example", 1)
}

func TestReboundPageInABrowserReachesNothing(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	s := newBrowsedStand(t, "PROXY_QUIT_ENDPOINT=true", "PROXY_ALLOWED_HOSTS=tool.internal")
	t.Run("data", func(t *testing.T) {
		page, host := rebound(t, s.Listen)
		page.orders.Targets = []target{{"rebound", "http://" + host}}
		page.orders.Navigate = "http://" + host + "/rebound/navigate"
		s.holdRefused(event.HostNotAllowed, "rebound", append(pathsOf("rebound"), "/rebound/navigate"), page.visit(t, host))
	})
	t.Run("admin", func(t *testing.T) {
		page, host := rebound(t, s.Admin)
		page.orders.Admin.Base, page.orders.Admin.Paths = "http://"+host, attackAdmin
		s.denied[string(event.HostNotAllowed)] += float64(len(attackAdmin))
		s.holdRefused(event.HostNotAllowed, "", nil, page.visit(t, host))
	})
}

// Browsers send Fetch metadata only to trustworthy URLs: https and loopback names. A
// no-cors GET to any other name cannot be recognized as a page's. An API key prevents
// such requests, because pages do not know it.
func TestBlindGETOfAPageInABrowserReachesAPlainNameWithoutAKeyAlone(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	open, keyed := newBrowsedStand(t, "PROXY_ALLOWED_HOSTS=proxy.internal"), newBrowsedStand(t, "PROXY_ALLOWED_HOSTS=proxy.internal", "PROXY_API_KEY=a-key-that-no-page-knows")
	page := newSite(t)
	at := func(s *stand) string { return "http://" + strings.Replace(s.Listen, "127.0.0.1", "proxy.internal", 1) }
	page.orders.Targets = []target{{"open", at(open)}, {"keyed", at(keyed)}}
	unread(t, page.visit(t, net.JoinHostPort("evil.example", page.port)))
	for _, l := range awaitLines(t, open.Program, "open", pathsOf("open")) {
		blind := []string{"/open/image", "/open/script", "/open/frame", "/open/blind"}
		if l.Error != string(event.OriginNotAllowed) && (l.Method != "GET" || !slices.Contains(blind, l.Path)) {
			t.Errorf("%+v", l)
		}
	}
	for _, l := range awaitLines(t, keyed.Program, "keyed", pathsOf("keyed")) {
		if l.Status != 401 && l.Status != 403 {
			t.Errorf("%+v", l)
		}
	}
	if n := len(open.arrived()); n != 4 {
		t.Errorf("%d blind GETs arrived; are browsers kinder now? docs/security.md says 4", n)
	}
	if asked := keyed.arrived(); len(asked) > 0 {
		t.Errorf("%+v arrived", asked)
	}
}

func TestPageOfAnAllowedOriginInABrowserCallsAndReads(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	page := newSite(t)
	host := net.JoinHostPort("tool.example", page.port)
	sim := program.Simulate(t, simulator.Options{})
	sim.AddFault(simulator.Fault{Path: "/allowed/", Status: 200, Body: "account data"})
	p := program.Serve(t, sim, "PROXY_ALLOWED_ORIGINS=http://"+host)
	page.orders.Targets = []target{{"allowed", "http://" + p.Listen}}
	report := page.visit(t, host)
	for _, attempt := range []string{"read", "preflight", "json"} {
		if saw := report["allowed/"+attempt]; saw != "200 account data" {
			t.Errorf("%s: the page saw %q", attempt, saw)
		}
	}
	for _, attempt := range []string{"image", "frame", "form", "socket", "readwith"} {
		if saw := report["allowed/"+attempt]; strings.Contains(saw, "account") || saw == "load" || saw == "open" {
			t.Errorf("%s: the page saw %q", attempt, saw)
		}
	}
}
