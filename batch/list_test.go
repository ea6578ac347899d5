package batch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/batch"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/secret"
	"mimecast-proxy/simulator"
)

func TestListAndFilesOfTheSimulator(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	direct, original := r.directly(listPath + "?type=receipt&pageSize=3")
	if direct.StatusCode != http.StatusOK {
		t.Fatal(direct.Status)
	}
	res, body := r.get(listPath + "?type=receipt&pageSize=3")
	if res.StatusCode != http.StatusOK || res.ContentLength != int64(len(body)) || res.Header.Get("Content-Encoding") != "" {
		t.Fatalf("%v\n%s", res.Header, body)
	}
	theirs, ours := urls(t, original), urls(t, body)
	if len(theirs) == 0 || len(theirs) != len(ours) {
		t.Fatalf("%d and %d files", len(theirs), len(ours))
	}
	for i := range ours {
		if !strings.HasPrefix(ours[i], r.proxy.URL+batch.Path) || strings.Contains(body, "Amz") {
			t.Fatalf("the list has %s", ours[i])
		}
		file, content := r.get(ours[i])
		_, want := r.directly(theirs[i])
		if file.StatusCode != http.StatusOK || content != want || content == "" || file.Header.Get("Content-Type") != "application/x-gzip" {
			t.Errorf("%d: %d bytes, not %d", file.StatusCode, len(content), len(want))
		}
	}
	if got := r.reported(); got != "[200 200 200] [] []" {
		t.Errorf("reported was %s", got)
	}
}

// directly requests a path of the API, or a file, without the proxy.
func (r *rig) directly(address string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, address, nil)
	if err == nil && strings.HasPrefix(address, "/") {
		req, err = http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.sim.URL+address, nil)
		req.Header.Set("Authorization", r.acc.Tokens.(bearer).Authorization())
	}
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := r.acc.Transport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(body)
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return b.String()
}

const oneFile = "\n{ \"value\":[{\"size\":1.50,\"url\" :\"https://files.example/a?b=c\\u0026d\",\"é\":\"\\u00e9 < &\"}],\t\"@nextPage\":\"x\"} "

func TestOnlyTheURLsOfAListChange(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	before, after, _ := strings.Cut(oneFile, `"https://files.example/a?b=c\u0026d"`)
	for name, f := range map[string]simulator.Fault{
		"plain":           {Body: oneFile},
		"of another type": {Body: oneFile, Header: map[string]string{"Content-Type": "application/octet-stream"}},
		"compressed":      {Body: zipped(t, oneFile), Header: map[string]string{"Content-Encoding": "gzip"}},
		"with a 103":      {Body: oneFile, Hints: map[string]string{"Link": "</x>"}},
		"with a trailer":  {Body: oneFile, Trailer: map[string]string{"X-Sum": "y"}},
		"with digests": {Body: oneFile, Header: map[string]string{
			"Etag": `"x"`, "Content-Md5": "x", "Content-Digest": "x", "Repr-Digest": "x", "Digest": "x", "Accept-Ranges": "bytes"}},
		"with status 201": {Status: http.StatusCreated, Body: oneFile},
	} {
		t.Run(name, func(t *testing.T) {
			f.Header = maps.Clone(f.Header)
			if f.Header == nil {
				f.Header = map[string]string{}
			}
			f.Header["X-RateLimit-Remaining"] = "7"
			r.answer(f)
			res, body := r.get(listPath)
			begin, address, ok := strings.Cut(strings.TrimSuffix(body, after), `"`+r.proxy.URL+batch.Path+"events/cg/")
			address, closed := strings.CutSuffix(address, `"`)
			if begin != before || !ok || !closed || !strings.HasSuffix(body, after) || strings.ContainsAny(address, `"\/`) {
				t.Errorf("the list is %q", body)
			}
			if res.ContentLength != int64(len(body)) || res.StatusCode == 0 || res.Header.Get("X-Ratelimit-Remaining") != "7" || len(res.Trailer) > 0 {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			for _, gone := range []string{"Etag", "Content-Md5", "Content-Digest", "Repr-Digest", "Digest", "Accept-Ranges", "Content-Encoding", "Trailer", "X-Sum"} {
				if res.Header.Get(gone) != "" {
					t.Errorf("the list has %s: %s", gone, res.Header.Get(gone))
				}
			}
		})
	}
}

func TestWhatIsNoListPassesAsItIs(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	for name, f := range map[string]simulator.Fault{
		"an error":             {Status: http.StatusForbidden, Body: oneFile},
		"a failure with 200":   {Body: `{"fail":[{"code":"x","url":"https://a"}],"value":[ ]}`},
		"no JSON":              {Body: "<html>" + oneFile},
		"half of it":           {Body: oneFile[:40]},
		"compressed, no list":  {Body: zipped(t, `{"value":[]}`), Header: map[string]string{"Content-Encoding": "gzip"}},
		"a redirect":           {Status: http.StatusFound, Body: oneFile},
		"a server error":       {Status: http.StatusServiceUnavailable, Body: strings.Repeat(" ", 100)},
		"of a rate limit":      {Status: http.StatusTooManyRequests, Body: "{}"},
		"larger than the most": {Status: http.StatusBadRequest, Body: "{}", Size: batch.MaxList + 1},
	} {
		t.Run(name, func(t *testing.T) {
			f.Header = maps.Clone(f.Header)
			if f.Header == nil {
				f.Header = map[string]string{}
			}
			f.Header["Etag"] = `"x"`
			r.answer(f)
			res, body := r.get(listPath)
			want := f.Body
			if f.Size > 0 {
				want, body = fmt.Sprint(f.Size), fmt.Sprint(len(body))
			}
			if body != want || res.StatusCode != max(f.Status, 200) || res.Header.Get("Etag") != `"x"` || res.Header.Get(problem.Header) != "" {
				t.Errorf("%d %v %.200q", res.StatusCode, res.Header, body)
			}
		})
	}
	for _, path := range []string{
		"/siem/v1/events/cg", "/siem/v1/batch", "/x/siem/v1/batch/events/cg",
		"/siem/v1/batch/", "/siem/v1/batch/events/cg/", "/siem/v1/batch/events/c%67", "/siem/v1/batch/events%2Fcg", "/siem/v1/batch/events/cg;x", "/siem/v1/batch//cg",
	} {
		r.sim.AddFault(simulator.Fault{Path: "/", Count: 1, Status: 200, Body: oneFile})
		if _, body := r.get(path); body != oneFile {
			t.Errorf("%s: %s", path, body)
		}
	}
	r.answer(simulator.Fault{Body: oneFile})
	if _, body := r.do(http.MethodPost, listPath); body != oneFile {
		t.Errorf("by POST: %s", body)
	}
	r.answer(simulator.Fault{Body: oneFile})
	if res, body := r.do(http.MethodHead, listPath); res.StatusCode != 200 || body != "" {
		t.Errorf("by HEAD: %d %s", res.StatusCode, body)
	}
	if got := r.reported(); got != "[] [] []" {
		t.Errorf("reported was %s", got)
	}
}

func TestListThatCannotBeRewrittenIsRejected(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	bomb := zipped(t, `{"value":[{"url":"https://files.example/a"}]}`+strings.Repeat(" ", batch.MaxList))
	for name, c := range map[string]struct {
		fault  simulator.Fault
		detail string
	}{
		"too large":       {simulator.Fault{Body: oneFile, Size: batch.MaxList + 1}, "8388608 bytes"},
		"endless":         {simulator.Fault{Body: oneFile, Size: simulator.Endless}, "8388608 bytes"},
		"a bomb":          {simulator.Fault{Body: bomb, Header: map[string]string{"Content-Encoding": "gzip"}}, "8388608 bytes"},
		"unknown coding":  {simulator.Fault{Body: oneFile, Header: map[string]string{"Content-Encoding": "br"}}, "content coding"},
		"not gzip at all": {simulator.Fault{Body: oneFile, Header: map[string]string{"Content-Encoding": "gzip"}}, "unpacked"},
		"half of gzip":    {simulator.Fault{Body: zipped(t, oneFile)[:60], Header: map[string]string{"Content-Encoding": "gzip"}}, "unpacked"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fault.Header == nil {
				c.fault.Header = map[string]string{}
			}
			c.fault.Header["Etag"] = `"x"`
			r.answer(c.fault)
			res, body := r.get(listPath)
			if res.StatusCode != http.StatusBadGateway || res.Header.Get(problem.Header) != string(event.UpstreamReset) || !strings.Contains(body, c.detail) || res.Header.Get("Etag") != "" {
				t.Errorf("%d %v %.300s", res.StatusCode, res.Header, body)
			}
			if got := r.reported(); got != "[] [] [upstream_reset]" {
				t.Errorf("reported was %s", got)
			}
		})
	}
}

// A truncated list must not look complete.
func TestListThatIsCutIsCutForTheClient(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	r.answer(simulator.Fault{Body: oneFile, Size: 1000, Cut: simulator.CutBody, CutAfter: 500})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.proxy.URL+listPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.proxy.Client().Do(req)
	if err == nil {
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
}

func TestListIsRequestedWholeAndPlain(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	r.get(listPath, "Accept-Encoding", "gzip, br", "Range", "bytes=0-9", "If-Range", `"x"`, "X-Mc-Accountcode", "C1", "User-Agent", clientID)
	h := r.sim.Requests()[len(r.sim.Requests())-1].Header
	if !slices.Equal(h["Accept-Encoding"], []string{"identity"}) || h.Get("Range")+h.Get("If-Range") != "" || h.Get("X-Mc-Accountcode") != "C1" || h.Get("User-Agent") != clientID {
		t.Errorf("Mimecast got %v", h)
	}
}

func TestURLsLeadToWhereTheClientCalled(t *testing.T) {
	r := newRig(t, simulator.Options{})
	for _, c := range []struct{ host, base string }{
		{"proxy.example:8080", "http://proxy.example:8080"},
		{"[::1]:8080", "http://[::1]:8080"},
		{"proxy.example", "https://proxy.example"},
	} {
		r.answer(simulator.Fault{Body: oneFile})
		q := httptest.NewRequest(http.MethodGet, listPath, nil)
		q.Host = c.host
		if strings.HasPrefix(c.base, "https") {
			q.TLS = &tls.ConnectionState{}
		}
		w := httptest.NewRecorder()
		r.handler().ServeHTTP(w, q)
		if got := urls(t, w.Body.String()); len(got) != 1 || !strings.HasPrefix(got[0], c.base+batch.Path) {
			t.Errorf("%s: %v", c.host, got)
		}
	}
	// A base URL cannot break out of the JSON string.
	r.options.BaseURL = func(*http.Request) string { return `http://"},{"url":"x` }
	r.answer(simulator.Fault{Body: oneFile})
	w := httptest.NewRecorder()
	r.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, listPath, nil))
	if got := urls(t, w.Body.String()); len(got) != 1 || !strings.HasPrefix(got[0], `http://"},{"url":"x`+batch.Path) {
		t.Errorf("%v", got)
	}
}

// A file's path has its list's path in it, so the same routes allow both.
func TestFilesHaveThePathOfTheirList(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	for _, list := range []string{listPath, "/siem/v1/batch/events/ci", "/siem/v1/batch/x", "/siem/v1/batch/Events/CG/x_y-0"} {
		r.sim.AddFault(simulator.Fault{Path: "/siem/", Count: 1, Status: 200, Body: oneFile})
		_, body := r.get(list)
		path := strings.TrimPrefix(urls(t, body)[0], r.proxy.URL)
		if got := batch.ListPath(path); got != list {
			t.Errorf("%s: the file is of %q", list, got)
		}
	}
	for path, want := range map[string]string{
		"": "", "/": "", "/batch": "", "/BATCH/events/cg/x": "", listPath: "", "/x/batch/y": "",
		"/batch/": "/siem/v1/batch/", "/batch/x": "/siem/v1/batch/", "/batch/events/ci/": "/siem/v1/batch/events/ci", "/batch//x": "/siem/v1/batch/",
	} {
		if got := batch.ListPath(path); got != want {
			t.Errorf("%s: of %q", path, got)
		}
	}
}

func TestNothingIsRelayedWithoutKeysOrDownload(t *testing.T) {
	r := newRig(t, simulator.Options{}).serve()
	sealed := batch.Path + batch.Seal(t, simulator.DefaultClientSecret, "events/cg", r.sim.BlobURL+"/x", time.Time{}, time.Now())
	check := func(name string, h http.Handler, acc *account.Account) {
		r.answer(simulator.Fault{Body: oneFile})
		for path, want := range map[string]int{listPath: 200, sealed: 404} {
			w := httptest.NewRecorder()
			q := httptest.NewRequest(http.MethodGet, path, nil)
			h.ServeHTTP(w, q.WithContext(account.NewContext(q.Context(), acc, "")))
			if w.Code != want || path == listPath && w.Body.String() != oneFile || w.Header().Get(problem.Header) != "" {
				t.Errorf("%s: %d %v %s", name, w.Code, w.Header(), w.Body)
			}
		}
	}
	next := r.options
	next.Download = nil
	bottom := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.URL.Path, batch.Path) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, oneFile)
	})
	check("no download", batch.Wrap(next)(bottom), r.acc)
	check("no keys", batch.Wrap(r.options)(bottom), &account.Account{BaseURL: r.acc.BaseURL})
	check("none of them", batch.Wrap(r.options)(bottom), &account.Account{SealKeys: func() []secret.Text { return nil }})
	check("no account", batch.Wrap(r.options)(bottom), nil)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slowWriter is the response to a client that reads nothing until read is closed.
type slowWriter struct {
	*httptest.ResponseRecorder
	read chan struct{}
}

func (w slowWriter) Write(b []byte) (int, error) {
	<-w.read
	return w.ResponseRecorder.Write(b)
}

// Each list is in memory while its client reads. Lists that wait for Mimecast's response do
// not count.
func TestListsAtATimeAreBounded(t *testing.T) {
	for _, c := range []struct{ most, share, slow int }{{0, 0, 5}, {1, 0, 1}, {2, 0, 2}, {4, 9, 2}, {2, 9, 1}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { boundLists(t, c.most, c.share, c.slow) })
		})
	}
}

func boundLists(t *testing.T, most, share, slow int) {
	var failed []event.Code
	hang := make(chan struct{})
	next := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.Header.Get("User-Agent") {
		case "hangs":
			<-hang
		case "rejected":
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.Header().Set("Etag", `"x"`)
		if _, err := io.WriteString(w, oneFile); err != nil {
			panic(http.ErrAbortHandler) // as httputil.ReverseProxy does
		}
	})
	layer := batch.Wrap(batch.Options{
		Download: http.DefaultTransport, MaxLists: most, BaseURL: func(*http.Request) string { return "http://proxy.example" },
		Trace: batch.Trace{Failed: func(_ context.Context, p *problem.Problem) { failed = append(failed, p.Code) }},
	})(next)
	accountWithShare := func() *account.Account {
		one := &account.Account{SealKeys: func() []secret.Text { return []secret.Text{secret.New("a client secret")} }}
		one.SetShare(share, 0)
		return one
	}
	a, b := accountWithShare(), accountWithShare()
	list := func(ctx context.Context, w http.ResponseWriter, of *account.Account, userAgent string) {
		q := httptest.NewRequestWithContext(account.NewContext(ctx, of, ""), http.MethodGet, listPath, nil)
		q.Header.Set("User-Agent", userAgent)
		layer.ServeHTTP(w, q)
	}
	status := func(of *account.Account, userAgent string) (int, http.Header) {
		w := httptest.NewRecorder()
		list(t.Context(), w, of, userAgent)
		return w.Code, w.Header()
	}
	var lists sync.WaitGroup
	for range most + 1 { // these keep no list yet
		lists.Go(func() { list(t.Context(), httptest.NewRecorder(), a, "hangs") })
	}
	synctest.Wait()
	if got, _ := status(a, ""); got != 200 {
		t.Errorf("beside lists that wait for Mimecast: %d", got)
	}
	read := make(chan struct{})
	for range slow {
		lists.Go(func() { list(t.Context(), slowWriter{httptest.NewRecorder(), read}, a, "") })
	}
	synctest.Wait()
	got, header := status(a, "")
	if most == 0 {
		if got != 200 {
			t.Errorf("without a bound: %d", got)
		}
	} else if got != 503 || header.Get(problem.Header) != string(event.TooBusy) || header.Get("Retry-After") != "1" || header.Get("Etag") != "" {
		t.Errorf("%d %v", got, header)
	} else if !slices.Equal(failed, []event.Code{event.TooBusy}) {
		t.Errorf("reported was %v", failed)
	}
	if most > 0 {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		list(gone, httptest.NewRecorder(), a, "")
		if !slices.Contains(failed, event.ClientGone) {
			t.Errorf("of a client that has gone: %v", failed)
		}
	}
	if got, _ := status(a, "rejected"); got != 429 {
		t.Errorf("an error response: %d", got)
	}
	if share > 0 {
		if got, _ := status(b, ""); got != 200 {
			t.Errorf("another account got %d", got)
		}
	}
	time.AfterFunc(time.Second, func() { close(read) })
	if got, _ := status(a, ""); got != 200 { // waits for a place
		t.Errorf("then %d", got)
	}
	close(hang)
	lists.Wait()
}
