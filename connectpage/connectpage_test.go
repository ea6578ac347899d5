package connectpage_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/connectpage"
	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/secret"
)

func TestMain(m *testing.M) {
	suite.Parallel(4)
	goleak.VerifyTestMain(browser.M{M: m})
}

const (
	goodID     = "marked-id-0123456789"
	goodSecret = "marked-secret-0123456789"
)

// page is a served connect page.
type page struct {
	*testing.T
	address, code string
	client        *http.Client
	close         func() // waits for responses

	mu     sync.Mutex
	inputs []connectpage.Input // the arguments of Connect
	dones  int
	visits []string        // method and Sec-Fetch-Site of every request
	seen   strings.Builder // every response with its headers
}

// connects accepts only goodID with goodSecret.
func connects(in connectpage.Input) (connectpage.Connected, error) {
	switch {
	case in.ClientID != goodID:
		return connectpage.Connected{}, &connectpage.Rejected{Fields: []connectpage.Field{connectpage.ClientID}, Text: "Mimecast does not know this client ID."}
	case in.ClientSecret.Reveal() != goodSecret:
		return connectpage.Connected{}, &connectpage.Rejected{Fields: []connectpage.Field{connectpage.ClientSecret}, Text: "Mimecast rejects the secret."}
	}
	return connectpage.Connected{
		Account: "Harbour Mills Ltd", Region: "eu", Lifetime: 1799 * time.Second, Stored: "in the keyring, as profile default",
		Next: "mimecast-proxy serve", Notes: []string{"whoami is not allowed for this application's role."},
	}, nil
}

// serve serves a page. change may modify the default options.
func serve(t *testing.T, change func(*connectpage.Options)) *page {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &page{T: t, address: listener.Addr().String(), code: connectpage.NewCode()}
	transport := &http.Transport{}
	p.client = &http.Client{Transport: transport, Timeout: program.Patience}
	o := connectpage.Options{
		Address: p.address, Code: p.code, Regions: []string{"global", "uk", "us"}, Input: connectpage.Input{Region: "global"}, StoreText: "in the keyring, as profile default",
		Connect: func(_ context.Context, in connectpage.Input) (connectpage.Connected, error) { return connects(in) },
		Done:    func() {},
	}
	if change != nil {
		change(&o)
	}
	connect, done := o.Connect, o.Done
	o.Connect = func(ctx context.Context, in connectpage.Input) (connectpage.Connected, error) {
		p.mu.Lock()
		p.inputs = append(p.inputs, in)
		p.mu.Unlock()
		return connect(ctx, in)
	}
	if done != nil {
		o.Done = func() {
			p.mu.Lock()
			p.dones++
			p.mu.Unlock()
			done()
		}
	}
	h := connectpage.Handler(o)
	var conns sync.WaitGroup // net/http closes connections with unread bodies late
	count := func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		case http.StateActive, http.StateIdle:
		}
	}
	server := &http.Server{ConnState: count, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.visits = append(p.visits, r.Method+" "+r.Header.Get("Sec-Fetch-Site"))
		p.mu.Unlock()
		h.ServeHTTP(w, r)
	})}
	p.close = func() { _ = server.Shutdown(context.Background()) }
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		<-ended
		conns.Wait()
	})
	return p
}

func (p *page) url(path string) string { return "http://" + p.address + path }

// request returns a request as the page's own form would send it.
func (p *page) request(method, path string, form url.Values) *http.Request {
	p.Helper()
	r, err := http.NewRequest(method, p.url(path), strings.NewReader(form.Encode()))
	if err != nil {
		p.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if method == "POST" {
		r.Header.Set("Origin", "http://"+p.address)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

// send sends a request and returns the response and its body.
func (p *page) send(r *http.Request) (*http.Response, string) {
	p.Helper()
	res, err := p.client.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	dump, err := httputil.DumpResponse(res, true)
	if err != nil {
		p.Fatal(err)
	}
	p.mu.Lock()
	p.seen.Write(dump)
	p.mu.Unlock()
	_, body, _ := strings.Cut(string(dump), "\r\n\r\n")
	return res, html.UnescapeString(body)
}

// open uses the code and returns the form's session value.
func (p *page) open() (session string) {
	p.Helper()
	res, body := p.send(p.request("GET", connectpage.Path(p.code), nil))
	if res.StatusCode != 200 {
		p.Fatalf("%d for the link", res.StatusCode)
	}
	return sessionIn(p.T, body)
}

func sessionIn(t *testing.T, body string) string {
	t.Helper()
	found := regexp.MustCompile(`name="session" value="([\w-]{43})"`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("no session in\n%s", body)
	}
	return found[1]
}

// submit sends the form.
func (p *page) submit(session, id, secret string) string {
	p.Helper()
	res, body := p.send(p.request("POST", "/", entered(session, id, secret)))
	if res.StatusCode != 200 {
		p.Fatalf("%d for the form", res.StatusCode)
	}
	return body
}

func entered(session, id, secret string) url.Values {
	return url.Values{"session": {session}, "region": {"uk"}, "client_id": {id}, "client_secret": {secret}}
}

// inputOf returns the tag of a page's input.
func inputOf(t *testing.T, body, name string) string {
	t.Helper()
	found := regexp.MustCompile(`<(input|select) id="` + name + `"[^>]*>`).FindString(body)
	if found == "" {
		t.Fatalf("no input %s in\n%s", name, body)
	}
	return found
}

func has(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in\n%s", w, text)
		}
	}
}

func hasNot(t *testing.T, text string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if strings.Contains(text, u) {
			t.Errorf("%q in\n%s", u, text)
		}
	}
}

func TestConnects(t *testing.T) {
	p := serve(t, nil)
	_, form := p.send(p.request("GET", connectpage.Path(p.code), nil))
	has(t, form, "Services > API and Platform Integrations", "API 2.0 application", "smallest role", "shows the secret once", `<option value="global" selected>`,
		"Tested first, then stored in the keyring, as profile default.")
	hasNot(t, form, "<script", "Not connected", p.code)
	has(t, inputOf(t, form, "client_id"), `type="text"`, `autocomplete="off"`, `spellcheck="false"`, "required")
	has(t, inputOf(t, form, "client_secret"), `type="password"`, `autocomplete="off"`, "required")
	connected := p.submit(sessionIn(t, form), goodID, goodSecret)
	has(t, connected, "Connected to Harbour Mills Ltd, eu; token valid for 30 minutes", "Stored in the keyring, as profile default.", "<code>mimecast-proxy serve</code>",
		"whoami is not allowed", "You can close this page.")
	hasNot(t, connected, "<form")
	if got := p.inputs[0]; got.Region != "uk" || got.ClientID != goodID || got.ClientSecret.Reveal() != goodSecret {
		t.Errorf("%+v", got)
	}
}

func TestRejectsWhatIsNotFromThePage(t *testing.T) {
	set := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del(name)
			for _, v := range values {
				r.Header.Add(name, v)
			}
		}
	}
	type change = func(*http.Request)
	host := func(name string) change { return func(r *http.Request) { r.Host = name } }
	method := func(name string) change { return func(r *http.Request) { r.Method = name } }
	at := func(path string) change { return func(r *http.Request) { r.URL.Path = path } }
	const get, post = "GET", "POST"
	for name, c := range map[string]struct {
		method string
		change change
		want   int
	}{
		"a rebound name":              {get, host("rebound.example"), 403},
		"a rebound name's form":       {post, host("rebound.example"), 403},
		"another name of the machine": {get, host("localhost"), 403},
		"another port":                {get, host("127.0.0.1:1"), 403},
		"a link on another site":      {get, set("Sec-Fetch-Site", "cross-site"), 403},
		"another port's page":         {get, set("Sec-Fetch-Site", "same-site"), 403},
		"another site's form":         {post, set("Sec-Fetch-Site", "cross-site"), 403},
		"two sites":                   {post, set("Sec-Fetch-Site", "same-origin", "cross-site"), 403},
		"an empty site":               {get, set("Sec-Fetch-Site", ""), 403},
		"another origin":              {post, set("Origin", "https://evil.example"), 403},
		"another origin's GET":        {get, set("Origin", "https://evil.example"), 403},
		"no origin":                   {post, set("Origin"), 403},
		"the origin null":             {post, set("Origin", "null"), 403},
		"the origin under https":      {post, func(r *http.Request) { r.Header.Set("Origin", "https://"+r.URL.Host) }, 403},
		"two origins":                 {post, func(r *http.Request) { r.Header.Add("Origin", "http://"+r.URL.Host) }, 403},
		"a plain text":                {post, set("Content-Type", "text/plain"), 415},
		"a multipart form":            {post, set("Content-Type", "multipart/form-data; boundary=x"), 415},
		"no type":                     {post, set("Content-Type"), 415},
		"another path":                {get, at("/other"), 404},
		"another path's form":         {post, at("/other"), 404},
		"no code":                     {get, func(r *http.Request) { r.URL.RawQuery = "" }, 403},
		"an empty code":               {get, func(r *http.Request) { r.URL.RawQuery = "code=" }, 403},
		"another code":                {get, func(r *http.Request) { r.URL.RawQuery = "code=" + connectpage.NewCode() }, 403},
		"loaded ahead":                {get, set("Sec-Purpose", "prefetch;prerender"), 403},
		"HEAD":                        {get, method("HEAD"), 405},
		"PUT":                         {post, method("PUT"), 405},
		"DELETE":                      {get, method("DELETE"), 405},
		"OPTIONS":                     {get, method("OPTIONS"), 405},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, nil)
			session := ""
			if c.method == post {
				session = p.open()
			}
			r := p.request(c.method, map[string]string{get: connectpage.Path(p.code), post: "/"}[c.method], entered(session, goodID, goodSecret))
			c.change(r)
			res, body := p.send(r)
			if res.StatusCode != c.want {
				t.Errorf("%d, want %d", res.StatusCode, c.want)
			}
			hasNot(t, body, "<form")
			if c.method == post {
				p.submit(session, goodID, goodSecret)
			} else {
				p.open() // the code is still unused
			}
			if want := map[string]int{get: 0, post: 1}[c.method]; len(p.inputs) != want {
				t.Errorf("Connect was called %d times, want %d", len(p.inputs), want)
			}
		})
	}
}

func TestRejectsAFormWithoutTheSession(t *testing.T) {
	p := serve(t, nil)
	session := p.open()
	for name, c := range map[string]struct {
		form url.Values
		want int
	}{
		"none":     {url.Values{"client_id": {goodID}, "client_secret": {goodSecret}}, 403},
		"empty":    {entered("", goodID, goodSecret), 403},
		"another":  {entered(connectpage.NewCode(), goodID, goodSecret), 403},
		"the code": {entered(p.code, goodID, goodSecret), 403},
		"too much": {entered(session, goodID, strings.Repeat("x", 64<<10)), 413},
	} {
		t.Run(name, func(t *testing.T) {
			if res, _ := p.send(p.request("POST", "/", c.form)); res.StatusCode != c.want {
				t.Errorf("%d, want %d", res.StatusCode, c.want)
			}
		})
	}
	inURL := p.request("POST", "/?"+entered(session, goodID, goodSecret).Encode(), nil)
	if res, _ := p.send(inURL); res.StatusCode != 403 {
		t.Errorf("%d for values in the URL", res.StatusCode)
	}
	broken := p.request("POST", "/", nil)
	broken.Body, broken.ContentLength = io.NopCloser(strings.NewReader("session=%zz")), 11
	if res, _ := p.send(broken); res.StatusCode != 400 {
		t.Errorf("%d for a broken form", res.StatusCode)
	}
	if len(p.inputs) != 0 {
		t.Errorf("Connect was called with %v", p.inputs)
	}
}

func TestEveryResponseHasTheHeaders(t *testing.T) {
	p := serve(t, nil)
	_, form := p.send(p.request("GET", connectpage.Path(p.code), nil))
	asset := regexp.MustCompile(`/static/page\.\w{12}\.css`).FindString(form)
	for path, want := range map[string]struct {
		status int
		cache  string
	}{
		connectpage.Path(p.code): {403, "no-store"},
		"/":                      {403, "no-store"},
		"/other":                 {404, "no-store"},
		"/favicon.ico":           {404, "no-store"},
		asset:                    {200, "private, max-age=31536000, immutable"},
		regexp.MustCompile(`/static/icon\.\w{12}\.svg`).FindString(form): {200, "private, max-age=31536000, immutable"},
	} {
		res, _ := p.send(p.request("GET", path, nil))
		if got := res.Header.Get("Cache-Control"); res.StatusCode != want.status || got != want.cache {
			t.Errorf("%s: %d, %s", path, res.StatusCode, got)
		}
		for name, value := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "same-origin",
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		} {
			if got := res.Header.Get(name); got != value {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
		if len(res.Cookies()) > 0 {
			t.Errorf("%s sets a cookie", path)
		}
	}
	if res, _ := p.send(p.request("POST", asset, nil)); res.StatusCode != 405 || res.Header.Get("Allow") != "GET" {
		t.Errorf("%d for a form sent to the style", res.StatusCode)
	}
}

func TestTheCodeWorksOnce(t *testing.T) {
	p := serve(t, nil)
	var opened, rejected int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			res, body := p.send(p.request("GET", connectpage.Path(p.code), nil))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case res.StatusCode == 200 && strings.Contains(body, "<form"):
				opened++
			case res.StatusCode == 403 && strings.Contains(body, "This link works once") && strings.Contains(body, "run the command again") && !strings.Contains(body, "<form"):
				rejected++
			}
		})
	}
	all.Wait()
	if opened != 1 || rejected != 19 {
		t.Errorf("opened %d times, rejected %d times", opened, rejected)
	}
}

func TestARejectedInputIsAskedAgain(t *testing.T) {
	p := serve(t, nil)
	session := p.open()

	body := p.submit(session, "<unknown>", goodSecret)
	has(t, body, "Mimecast does not know this client ID.", `role="alert"`, `<option value="uk" selected>`, "kept; leave empty to use it again")
	has(t, inputOf(t, body, "client_id"), `aria-invalid="true"`, `aria-describedby="client_id-note problem"`, "autofocus")
	has(t, inputOf(t, body, "client_secret"), `aria-describedby="client_secret-note"`)
	hasNot(t, inputOf(t, body, "client_secret"), "required", "aria-invalid", "value=")

	body = p.submit(session, goodID, "wrong-secret-0123456789")
	has(t, body, "Mimecast rejects the secret.")
	hasNot(t, body, goodID)
	has(t, inputOf(t, body, "client_secret"), "required", `aria-invalid="true"`, `aria-describedby="problem"`, "autofocus")
	has(t, inputOf(t, body, "client_id"), `aria-describedby="client_id-note"`)

	body = p.submit(session, goodID, "") // the wrong secret is not kept
	has(t, body, "Mimecast rejects the secret.")
	if last := p.inputs[len(p.inputs)-1]; !last.ClientSecret.IsZero() {
		t.Error("a rejected secret was used again")
	}
	body = p.submit(session, "unknown", goodSecret)
	has(t, body, "kept; leave empty to use it again")
	has(t, p.submit(session, goodID, ""), "Connected to Harbour Mills Ltd")
}

func TestAnyErrorKeepsWhatWasEntered(t *testing.T) {
	fails := true
	p := serve(t, func(o *connectpage.Options) {
		o.Connect = func(_ context.Context, in connectpage.Input) (connectpage.Connected, error) {
			if fails {
				fails = false
				return connectpage.Connected{}, errors.New("the keyring is locked: unlock it")
			}
			return connects(in)
		}
	})
	session := p.open()
	body := p.submit(session, goodID, goodSecret)
	has(t, body, "the keyring is locked: unlock it", "kept; leave empty to use it again")
	hasNot(t, body, "aria-invalid", "autofocus")
	has(t, p.submit(session, goodID, ""), "Connected to")
}

// Users may enter the secret as the ID, or both together.
func TestNoResponseShowsTheSecret(t *testing.T) {
	p := serve(t, nil)
	session := p.open()
	for name, c := range map[string][2]string{
		"as it should be": {"unknown", goodSecret},
		"swapped":         {goodSecret, goodID},
		"both in one":     {goodID + " " + goodSecret, "x"},
		"both, by lines":  {goodID + "\n" + goodSecret, ""},
		"as the ID alone": {goodSecret, ""},
	} {
		t.Run(name, func(t *testing.T) {
			body := p.submit(session, c[0], c[1])
			has(t, body, "Not connected")
			if c[0] != "unknown" {
				hasNot(t, inputOf(t, body, "client_id"), "required")
				has(t, body, "kept; leave empty to use it again")
			}
		})
	}
	for _, path := range []string{"/", "/other", connectpage.Path(p.code)} {
		p.send(p.request("GET", path, nil))
		p.send(p.request("POST", path, entered("", goodSecret, goodSecret)))
	}
	p.submit(session, goodID, goodSecret)
	p.submit(session, goodSecret, goodSecret)
	if strings.Contains(p.seen.String(), goodSecret) || strings.Contains(p.seen.String(), url.QueryEscape(goodSecret)) {
		t.Errorf("a response shows the secret:\n%s", p.seen.String())
	}
}

func TestAnIDThatIsNotShownIsKept(t *testing.T) {
	first := true
	p := serve(t, func(o *connectpage.Options) {
		o.Connect = func(_ context.Context, in connectpage.Input) (connectpage.Connected, error) {
			if first {
				first = false
				return connectpage.Connected{}, &connectpage.Rejected{Fields: []connectpage.Field{connectpage.ClientSecret}, Text: "The secret is cut off."}
			}
			return connects(in)
		}
	})
	session := p.open()
	body := p.submit(session, goodID, "cut")
	hasNot(t, body, goodID)
	has(t, p.submit(session, "", goodSecret), "Connected to")
}

func TestDoneFollowsTheResponse(t *testing.T) {
	received := make(chan struct{})
	p := serve(t, func(o *connectpage.Options) {
		o.Done = func() { // fails if Done does not wait for the response
			select {
			case <-received:
			case <-time.After(program.Patience):
				t.Error("Done was called before the response was sent")
			}
		}
	})
	session := p.open()
	p.submit(session, "unknown", goodSecret)
	if p.dones != 0 {
		t.Fatal("Done was called for a rejected input")
	}
	body := p.submit(session, goodID, goodSecret)
	close(received)
	has(t, body, "</html>")
	has(t, p.submit(session, goodID, goodSecret), "Connected to") // resending shows the result again
	if p.dones != 1 || len(p.inputs) != 2 {
		t.Errorf("Done was called %d times, Connect %d times", p.dones, len(p.inputs))
	}
}

// A double click sends the form twice.
func TestOneConnectAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{T: t, address: "127.0.0.1:1", code: "x"}
		var connecting, done atomic.Int32
		leave := make(chan struct{})
		h := connectpage.Handler(connectpage.Options{Address: p.address, Code: p.code, Done: func() { done.Add(1) }, Connect: func(_ context.Context, in connectpage.Input) (connectpage.Connected, error) {
			connecting.Add(1)
			<-leave
			return connects(in)
		}})
		_, form := overPipe(t, h, p.request("GET", "/?code=x", nil), false)
		fields := entered(sessionIn(t, form), goodID, goodSecret)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, body := overPipe(t, h, p.request("POST", "/", fields), false); !strings.Contains(body, "Connected to Harbour Mills Ltd") {
					t.Error(body)
				}
			})
		}
		synctest.Wait() // until one connects and the others wait for it
		if n := connecting.Load(); n != 1 {
			t.Errorf("%d calls of Connect at a time", n)
		}
		close(leave)
		all.Wait()
		if n := connecting.Load(); n != 1 || done.Load() != 1 {
			t.Errorf("Connect was called %d times, Done %d times", n, done.Load())
		}
	})
}

func TestABrowserThatLeftEndsItsAttempt(t *testing.T) {
	entering := make(chan struct{}, 1)
	first := true
	p := serve(t, func(o *connectpage.Options) {
		o.Connect = func(ctx context.Context, in connectpage.Input) (connectpage.Connected, error) {
			if !first {
				return connects(in)
			}
			first = false
			entering <- struct{}{}
			<-ctx.Done()
			return connectpage.Connected{}, ctx.Err()
		}
	})
	session := p.open()
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		res, err := p.client.Do(p.request("POST", "/", entered(session, goodID, goodSecret)).WithContext(ctx))
		if err == nil {
			res.Body.Close()
		}
		left <- err
	}()
	<-entering
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	has(t, p.submit(session, goodID, ""), "Connected to")
}

func TestPagesOfAKnownConnection(t *testing.T) {
	p := serve(t, func(o *connectpage.Options) {
		o.Regions, o.BaseURL, o.Rotate, o.Profile = nil, "https://eu.example", true, "emea"
		o.Input = connectpage.Input{Region: "eu", ClientID: goodID}
		o.Hint = "Enter <demo>."
	})
	_, form := p.send(p.request("GET", connectpage.Path(p.code), nil))
	has(t, form, "Replace the client secret", "emea", "https://eu.example", goodID, "Create a new client secret", "Enter <demo>.")
	hasNot(t, form, `id="region"`, `id="client_id"`, "<demo></demo>")
	form = p.submit(sessionIn(t, form), "another", "x")
	has(t, form, "Mimecast rejects the secret.")
	has(t, p.submit(sessionIn(t, form), "another", goodSecret), "Connected to")
	if got := p.inputs[1]; got.Region != "eu" || got.ClientID != goodID {
		t.Errorf("%+v", got)
	}
}

func TestAskedForAFixedBaseURL(t *testing.T) {
	p := serve(t, func(o *connectpage.Options) { o.Regions, o.BaseURL, o.Input.Region = nil, "http://127.0.0.1:1", "" })
	_, form := p.send(p.request("GET", connectpage.Path(p.code), nil))
	has(t, form, `id="client_id"`, "http://127.0.0.1:1")
	hasNot(t, form, `id="region"`, "Profile")
	p.submit(sessionIn(t, form), goodID, goodSecret)
	if got := p.inputs[0].Region; got != "" {
		t.Errorf("region %q, which was not asked", got)
	}
}

func TestHeadlines(t *testing.T) {
	for want, c := range map[string]connectpage.Connected{
		"Connected<":              {},
		"Connected to A & B, eu<": {Account: "A & B", Region: "eu"},
		"Connected to A<":         {Account: "A"},
		"Connected to region eu; token valid for 1 minute": {Region: "eu", Lifetime: time.Minute},
		"Connected; token valid for 30 seconds":            {Lifetime: 30 * time.Second},
		"Connected; token valid for 30 minutes":            {Lifetime: 1799 * time.Second},
		"Connected; token valid for 120 minutes":           {Lifetime: 2 * time.Hour},
	} {
		p := serve(t, func(o *connectpage.Options) {
			o.Connect = func(context.Context, connectpage.Input) (connectpage.Connected, error) { return c, nil }
			o.Done = nil
		})
		has(t, p.submit(p.open(), goodID, goodSecret), want)
	}
}

func TestCodesAreLongAndDiffer(t *testing.T) {
	var codes []string
	for range 100 {
		codes = append(codes, connectpage.NewCode())
	}
	slices.Sort(codes)
	if len(slices.Compact(codes)) != 100 || len(codes[0]) != 43 { // 256 bits, 6 per character
		t.Errorf("%q", codes[:2])
	}
	if got := connectpage.Path("a b"); got != "/?code=a+b" {
		t.Error(got)
	}
}

func TestHandlerPrintsNoSecret(t *testing.T) {
	h := connectpage.Handler(connectpage.Options{Code: "x", Input: connectpage.Input{ClientSecret: secret.New(goodSecret)}})
	hasNot(t, fmt.Sprintf("%v %+v %#v", h, h, h), goodSecret)
}

// pipes is a listener for pipes, whose deadlines follow a synctest bubble's clock.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// overPipe sends a request over a pipe. If it stalls, the last bytes are never sent.
func overPipe(t *testing.T, h http.Handler, r *http.Request, stalls bool) (status int, body string) {
	t.Helper()
	here, there := net.Pipe()
	listener := make(pipes, 1)
	listener <- there
	server := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	defer func() { close(listener); <-ended }()
	defer here.Close()
	var raw strings.Builder
	if err := r.Write(&raw); err != nil {
		t.Fatal(err)
	}
	text := raw.String()
	if stalls {
		text = text[:len(text)-5]
	}
	go io.WriteString(here, text)
	res, err := http.ReadResponse(bufio.NewReader(here), r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	read, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(read)
}

func TestASlowTestIsNotCutOffAndASlowFormIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &page{T: t, address: "127.0.0.1:1", code: "x"}
		h := connectpage.Handler(connectpage.Options{Address: p.address, Code: p.code, Connect: func(ctx context.Context, in connectpage.Input) (connectpage.Connected, error) {
			select {
			case <-ctx.Done():
				return connectpage.Connected{}, ctx.Err()
			case <-time.After(time.Minute):
				return connects(in)
			}
		}})
		_, form := overPipe(t, h, p.request("GET", "/?code=x", nil), false)
		fields := entered(sessionIn(t, form), goodID, goodSecret)
		began := time.Now()
		if status, _ := overPipe(t, h, p.request("POST", "/", fields), true); status != 400 || time.Since(began) != 10*time.Second {
			t.Errorf("a form that never ends: %d after %v", status, time.Since(began))
		}
		foreign := p.request("POST", "/", fields)
		foreign.Header.Set("Origin", "https://evil.example")
		began = time.Now()
		if status, _ := overPipe(t, h, foreign, true); status != 403 || time.Since(began) > 10*time.Second {
			t.Errorf("a foreign form that never ends: %d after %v", status, time.Since(began))
		}
		if status, body := overPipe(t, h, p.request("POST", "/", fields), false); status != 200 || !strings.Contains(body, "Connected to") {
			t.Errorf("a test of a minute: %d\n%s", status, body)
		}
	})
}
