package api1_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/api1"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

func TestRefusalsOfAPI2GoThroughAsTheyCame(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		header http.Header
		body   string
	}{
		{"401", 401, nil, `{"fail":[{"code":"token_verification_failed"}]}`},
		{"403", 403, nil, `{"fail":[{"code":"app_forbidden","message":"Forbidden"}]}`},
		{"429", 429, http.Header{"X-Ratelimit-Reset": {"61000"}, "X-Ratelimit-Remaining": {"0"}}, `{"fail":[{"code":"quota"}]}`},
		{"500", 500, http.Header{"X-Request-Id": {"one"}}, "<html>"},
		{"502 of the proxy", 502, http.Header{problem.Header: {"upstream_unreachable"}, "Proxy-Status": {"mimecast-proxy; error=x"}}, `{"fail":[{}]}`},
		{"503 of the proxy", 503, http.Header{"Retry-After": {"7"}}, `{"fail":[{}]}`},
		{"302", 302, http.Header{"Location": {"/elsewhere"}}, ""},
		{"204", 204, nil, ""},
		{"200 with a failure", 200, nil, `{"meta":{"status":200},"data":[],"fail":[{"errors":[{"code":"err"}]}]}`},
		{"200 with a failure and events", 200, nil, `{"value":[],"fail":[{"code":"err"}]}`},
		{"200 without JSON", 200, http.Header{"Content-Type": {"text/html"}}, "<html>"},
	} {
		for _, from := range []string{"/siem/v1/events/cg", "/siem/v1/batch/events/cg"} {
			t.Run(c.name+" "+from, func(t *testing.T) {
				f := newFake(t)
				f.page = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != from { // makes the translation request batches
						_, _ = io.WriteString(w, `{"value":[{"timestamp":1}],"@nextPage":"more","isCaughtUp":false}`)
						return
					}
					for name, v := range c.header {
						w.Header()[name] = v
					}
					w.WriteHeader(http.StatusEarlyHints)
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
				}
				col := f.collector()
				noRedirect(t)
				res, body, err := ask(&col)
				if err != nil || res.StatusCode != c.status || body != c.body {
					t.Fatalf("%v %d %q", err, res.StatusCode, body)
				}
				for name, v := range c.header {
					if res.Header.Get(name) != v[0] {
						t.Errorf("%s is %q", name, res.Header.Get(name))
					}
				}
				if res.Header.Get("mc-siem-token") != "" || res.Header.Get(api1.Header) != "translated" {
					t.Errorf("headers %v", res.Header)
				}
			})
		}
	}
}

func noRedirect(t *testing.T) {
	http.DefaultClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	t.Cleanup(func() { http.DefaultClient.CheckRedirect = nil })
}

func TestPageThatBreaksOffBreaksTheResponseOff(t *testing.T) {
	f := newFake(t)
	f.page = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"value":[{"timestamp":1}`)
		panic(http.ErrAbortHandler)
	}
	c := f.collector()
	res, err := http.Post(c.base+"/api/audit/get-siem-logs", "", strings.NewReader(string(c.body())))
	if err == nil {
		res.Body.Close()
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestPageMayBeCompressedButNotHuge(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		coding string
		want   int
	}{
		"plain": {10, "", 200}, "gzip": {10, "gzip", 200}, "huge": {9 << 20, "", 502}, "bomb": {9 << 20, "gzip", 502}, "unknown": {10, "br", 502},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.page = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", c.coding)
				var out io.Writer = w
				if c.coding == "gzip" {
					z := gzip.NewWriter(w)
					defer z.Close()
					out = z
				}
				_, _ = fmt.Fprintf(out, `{"value":[{"timestamp":1772620000000,"subject":"%s"}],"@nextPage":"a","isCaughtUp":true}`, strings.Repeat("x", c.size))
			}
			col := f.collector()
			res, body, err := ask(&col)
			if err != nil || res.StatusCode != c.want {
				t.Errorf("%v %d %.200s", err, res.StatusCode, body)
			}
			if code := res.Header.Get(problem.Header); (code == string(event.UpstreamReset)) != (c.want == 502) {
				t.Errorf("code %q", code)
			}
		})
	}
}

// A cursor with such a token would start over forever.
func TestTokenThatFitsNoCursorIsAnError(t *testing.T) {
	for token, want := range map[string]int{"NDU1NA==": 200, "a.b-c_d~e": 200, strings.Repeat("x", 2<<10): 200, strings.Repeat("x", 2<<10+1): 502, "a\\u0000": 502, "é": 502} {
		f := newFake(t)
		f.page = func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"value":[],"@nextPage":"%s","isCaughtUp":true}`, token)
		}
		c := f.collector()
		res, body, err := ask(&c)
		if err != nil || res.StatusCode != want {
			t.Errorf("%.10s: %v %d %s", token, err, res.StatusCode, body)
		}
		if c.token = res.Header.Get("mc-siem-token"); want == 200 {
			f.clock.Advance(time.Hour)
			f.trace.StartedOver = func(context.Context) { t.Errorf("%.10s: started over", token) }
			c.base = (f.collector()).base
			c.poll()
		}
	}
}

// A download that fails before the first event gets an error response. One that fails later
// must not look complete. The client's token stays valid.
func TestDownloadThatFailsDoesNotLookComplete(t *testing.T) {
	for _, c := range []collector{{}, {json: true}, {compress: true}, {json: true, compress: true}} {
		t.Run(string(c.body()), func(t *testing.T) {
			var failed error
			f := newFake(t)
			f.trace.Failed = func(_ context.Context, p *problem.Problem) { failed = p }
			f.batches["receipt"] = []string{"/one.json.gz", "/two.json.gz"}
			good := gzipped(f.event(map[string]any{"aggregateId": "a"}), f.event(map[string]any{"aggregateId": "b"}))
			col := f.collector()
			col.json, col.compress = c.json, c.compress

			f.files["/two.json.gz"] = content(good)
			res, body, err := ask(&col)
			if err != nil || res.StatusCode != 502 || res.Header.Get(problem.Header) != string(event.UpstreamUnreachable) || strings.Contains(body+failed.Error(), "permission") {
				t.Fatalf("%v %d %s %v", err, res.StatusCode, body, failed)
			}
			for name, h := range map[string]http.HandlerFunc{"file is missing": nil, "file is truncated": truncated(good), "store breaks off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
				"file ends early": content(good[:len(good)-9]), "file is damaged": content(append(append([]byte{}, good[:len(good)-8]...), "checksum"...))} {
				f.mu.Lock()
				f.files["/one.json.gz"], f.files["/two.json.gz"] = content(good), h
				f.mu.Unlock()
				if looksComplete(col) {
					t.Errorf("%s: the response looks complete", name)
				}
			}
			f.mu.Lock()
			f.files["/two.json.gz"] = content(good)
			f.mu.Unlock()
			if got := col.poll(); len(got) != 4 {
				t.Errorf("then %q", got)
			}
		})
	}
}

func looksComplete(c collector) bool {
	res, err := http.Post(c.base+"/api/audit/get-siem-logs", "", strings.NewReader(string(c.body())))
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && res.StatusCode == 200
}

func TestDownloadsFollowNoRedirectAndNoOddAddress(t *testing.T) {
	f := newFake(t)
	f.batches["receipt"] = []string{"/one"}
	f.files["/one"] = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/two", http.StatusFound) }
	f.files["/two"] = func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }
	c := f.collector()
	if res, body, _ := ask(&c); res.StatusCode != 502 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	for _, store := range []string{"file:///etc", "", "http://", "::", "ftp://host"} {
		f.mu.Lock()
		f.store = store
		f.mu.Unlock()
		if res, body, _ := ask(&c); res.StatusCode != 502 {
			t.Errorf("%q: %d %s", store, res.StatusCode, body)
		}
	}
}

func TestLinesThatAreNoEventsAreLeftOut(t *testing.T) {
	f := newFake(t)
	skipped := 0
	f.trace.Translated = func(_ context.Context, _ string, _, n int) { skipped += n }
	f.batches["receipt"] = []string{"/one", "/empty", "/plain"}
	f.files["/one"] = content(gzipped(`{"broken`, f.event(map[string]any{"aggregateId": "a"}), "", `[1]`, "null", `"text"`,
		f.event(map[string]any{"subject": strings.Repeat("x", 2<<20)}), f.event(map[string]any{"aggregateId": "b", "subject": strings.Repeat("y", 500<<10)})))
	f.files["/empty"] = content(nil)
	f.files["/plain"] = content([]byte(f.event(map[string]any{"aggregateId": "c"}))) // not compressed, no final newline
	c := f.collector()
	got := strings.Join(c.poll(), "; ")
	if got != "receipt 2026-03-04T12:06:30+0000 a; receipt 2026-03-04T12:06:30+0000 b; receipt 2026-03-04T12:06:30+0000 c" || skipped != 5 {
		t.Errorf("%s; %d left out", got, skipped)
	}
}

// One response contains a limited part of a page of batches.
func TestLargeBatchesComeInSeveralResponses(t *testing.T) {
	f := newFake(t)
	f.sizes = 3 << 20
	for i := range 7 {
		name := fmt.Sprintf("/%d", i)
		f.batches["receipt"] = append(f.batches["receipt"], name)
		f.files[name] = content(gzipped(f.event(map[string]any{"aggregateId": name})))
	}
	c := f.collector()
	if got := c.poll(); len(got) != 7 || c.responses != 5 { // 2, 2, 2 and 1 events, and the end
		t.Errorf("%d responses: %q", c.responses, got)
	}
}

// With HTTP/1.0, the end of the connection ends a response. So a truncated one would look
// complete.
func TestHTTP10HasNoBatches(t *testing.T) {
	f := newFake(t)
	f.batches["receipt"] = []string{"/never"}
	f.page = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/siem/v1/events/cg" {
			t.Error(r.URL)
		}
		_, _ = io.WriteString(w, `{"value":[`+f.event(nil)+`],"@nextPage":"more","isCaughtUp":false}`)
	}
	c := f.collector()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "POST /api/audit/get-siem-logs HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
	res, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(res), "aCode=code") {
		t.Errorf("%v %s", err, res)
	}
}
