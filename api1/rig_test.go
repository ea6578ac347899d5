package api1_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mimecast-proxy/account"
	"mimecast-proxy/api1"
	"mimecast-proxy/proxy"
	"mimecast-proxy/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the clock of simulator and proxy.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 4, 15, 6, 30, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bearer is a token and its source.
type bearer string

func (b bearer) Authorization() string                                         { return "Bearer " + string(b) }
func (bearer) Expiry() time.Time                                               { return time.Time{} }
func (b bearer) Token(context.Context) (account.Token, error)                  { return b, nil }
func (bearer) Renew(_ context.Context, t account.Token) (account.Token, error) { return t, nil }
func (bearer) Expire(account.Token)                                            {}

// rig is a simulator and a proxy in front of it.
type rig struct {
	t      *testing.T
	clock  *clock
	sim    *simulator.Server
	direct *http.Client
	token  string
	proxy  http.Handler
	// stream and batch count the calls to API 2.0.
	stream, batch atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, clock: newClock()}
	var err error
	r.sim, err = simulator.Start(simulator.Options{Now: r.clock.Now, TokenTTL: 1000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.sim.Roots}, DisableCompression: true, ForceAttemptHTTP2: true}
	r.direct = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = r.sim.Close()
	})
	r.login()
	base, err := url.Parse(r.sim.URL)
	if err != nil {
		t.Fatal(err)
	}
	acc := &account.Account{BaseURL: base, Tokens: bearer(r.token), Transport: transport}
	send := proxy.New(proxy.Options{Transport: proxy.Replay(1<<20, proxy.NewBudget(1<<20, nil))(proxy.Authenticate(proxy.Trace{}))})
	r.proxy = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/siem/v1/events/cg":
			r.stream.Add(1)
		case "/siem/v1/batch/events/cg":
			r.batch.Add(1)
		}
		send.ServeHTTP(w, q.WithContext(account.NewContext(q.Context(), acc, "")))
	})
	return r
}

func (r *rig) login() {
	r.t.Helper()
	res, err := r.direct.PostForm(r.sim.URL+"/oauth/token", url.Values{
		"client_id": {simulator.DefaultClientID}, "client_secret": {simulator.DefaultClientSecret}, "grant_type": {"client_credentials"}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		r.t.Fatal("no token: ", err)
	}
	r.token = answer.Token
}

// instance starts a proxy and returns its URL.
func (r *rig) instance() string {
	download := &http.Transport{}
	r.t.Cleanup(download.CloseIdleConnections)
	return serve(r.t, api1.Wrap(api1.Options{Translate: true, Now: r.clock.Now, Download: download})(r.proxy))
}

// withoutBatches starts a proxy that cannot download from object stores, and returns its
// URL.
func (r *rig) withoutBatches() string {
	return serve(r.t, api1.Wrap(api1.Options{Translate: true, Now: r.clock.Now})(r.proxy))
}

func serve(t *testing.T, h http.Handler) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// events gets all events since an instant directly from API 2.0, as texts like "receipt
// 2026-03-04T15:06:00+0000 2f3a…".
func (r *rig) events(since time.Time) []string {
	r.t.Helper()
	var all []string
	files := map[string]string{"journal": "jrnl", "url protect": "ttp_url", "attachment protect": "ttp_ap",
		"impersonation protect": "ttp_impersonation", "internal email protect": "ttp_iep"}
	r.sim.SetQuota("/siem/v1/events/", 0, 0) // these calls must not use the quota
	defer r.sim.SetQuota("/siem/v1/events/", 300, time.Hour)
	query := url.Values{"dateRangeStartsAt": {since.Format(time.RFC3339)}}
	for {
		req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.sim.URL+"/siem/v1/events/cg?"+query.Encode(), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+r.token)
		res, err := r.direct.Do(req)
		if err != nil {
			r.t.Fatal(err)
		}
		var page struct {
			Value []struct {
				Type, AggregateID string
				Timestamp         int64
			}
			Next     string `json:"@nextPage"`
			CaughtUp bool   `json:"isCaughtUp"`
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		res.Body.Close()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range page.Value {
			if e.Timestamp < since.UnixMilli() {
				continue
			}
			file := e.Type
			if f, ok := files[e.Type]; ok {
				file = f
			}
			code, _, _ := strings.Cut(e.AggregateID, "_")
			all = append(all, fmt.Sprintf("%s %s %s", file, time.UnixMilli(e.Timestamp).UTC().Format("2006-01-02T15:04:05-0700"), code))
		}
		if page.CaughtUp {
			slices.Sort(all)
			return all
		}
		query.Set("nextPage", page.Next)
	}
}

// collector is an API 1.0 client that works like the public ones.
type collector struct {
	t        *testing.T
	base     string
	json     bool
	compress bool
	// python sends the body as a Python dict, printed.
	python bool
	// filesOnly keeps a token only if it came with a file.
	filesOnly bool
	token     string
	names     map[string]bool // of files
	responses int
}

func (c *collector) post(path string, body []byte) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "POST", c.base+path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	date, id := time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05")+" UTC", "8a7c0f0e-5d3e-4a0c-9d1b-6f1f2b1c0d9e"
	// API 1.0 requires SHA-1, which is not approved in FIPS 140-3 mode.
	fips140.WithoutEnforcement(func() {
		mac := hmac.New(sha1.New, []byte("secret"))
		_, _ = fmt.Fprintf(mac, "%s:%s:%s:%s", date, id, path, "app-key")
		req.Header.Set("Authorization", "MC access-key:"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	})
	req.Header.Set("x-mc-app-id", "app-id")
	req.Header.Set("x-mc-date", date)
	req.Header.Set("x-mc-req-id", id)
	req.Header.Set("x-mc-accountcode", "C1")
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

func (c *collector) body() []byte {
	if c.python {
		text := fmt.Sprintf("{'data': [{'type': 'MTA', 'compress': %s, 'fileFormat': '%s'", map[bool]string{true: "True", false: "False"}[c.compress],
			map[bool]string{true: "json", false: "key_value"}[c.json])
		if c.token != "" {
			text += fmt.Sprintf(", u'token': %q", c.token)
		}
		return []byte(text + "}]}")
	}
	data := map[string]any{"type": "MTA", "compress": c.compress}
	if c.json {
		data["fileFormat"] = "JSON"
	}
	if c.token != "" {
		data["token"] = c.token
	}
	b, err := json.Marshal(map[string]any{"meta": map[string]any{}, "data": []any{data}})
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// poll collects until there are no more events, and returns them in the form of
// [rig.events].
func (c *collector) poll() []string {
	c.t.Helper()
	var all []string
	for range 1000 {
		res := c.post("/api/audit/get-siem-logs", c.body())
		content, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			c.t.Fatalf("status %d: %v: %.300s", res.StatusCode, err, content)
		}
		c.responses++
		token := res.Header.Get("mc-siem-token")
		if token == "" || res.Header.Get(api1.Header) != "translated" {
			c.t.Fatalf("no token or mark: %v", res.Header)
		}
		switch res.Header.Get("Content-Type") {
		case "application/json":
			if !c.filesOnly {
				c.token = token
			}
			var answer struct {
				Meta struct{ IsLastToken bool }
			}
			if err := json.Unmarshal(content, &answer); err != nil {
				c.t.Fatal(err)
			}
			if answer.Meta.IsLastToken {
				slices.Sort(all)
				return all
			}
		case "application/octet-stream":
			c.token = token
			all = append(all, c.read(res.Header.Get("Content-Disposition"), content)...)
		default:
			c.t.Fatalf("Content-Type %q", res.Header.Get("Content-Type"))
		}
	}
	c.t.Fatal("it never ends")
	return nil
}

// read returns the events in a file.
func (c *collector) read(disposition string, content []byte) []string {
	c.t.Helper()
	name := strings.Split(disposition, `="`)[1]
	name = name[:len(name)-1]
	if c.names == nil {
		c.names = map[string]bool{}
	}
	if c.names[name] {
		c.t.Fatalf("two files are named %s", name)
	}
	c.names[name] = true
	if c.compress {
		if !strings.HasSuffix(name, ".zip") {
			c.t.Fatalf("an archive is named %s", name)
		}
		z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
		if err != nil || len(z.File) != 1 {
			c.t.Fatalf("%v", err)
		}
		f, err := z.File[0].Open()
		if err != nil {
			c.t.Fatal(err)
		}
		if content, err = io.ReadAll(f); err != nil {
			c.t.Fatal(err)
		}
		name = z.File[0].Name
	}
	kind := name[:strings.LastIndexByte(name, '_')]
	if c.json {
		return c.readJSON(kind, content)
	}
	return c.readLines(kind, content)
}

func (c *collector) readJSON(kind string, content []byte) (all []string) {
	c.t.Helper()
	var file struct {
		Type string
		Data []map[string]any
	}
	if err := json.Unmarshal(content, &file); err != nil || file.Type != "MTA" {
		c.t.Fatalf("%v: %.200s", err, content)
	}
	for _, e := range file.Data {
		all = append(all, fmt.Sprintf("%s %s %s", kind, e["datetime"], e["aCode"]))
	}
	return all
}

func (c *collector) readLines(kind string, content []byte) (all []string) {
	c.t.Helper()
	for line := range strings.Lines(string(content)) {
		e := map[string]string{}
		for f := range strings.SplitSeq(strings.TrimSuffix(line, "\n"), "|") {
			name, value, ok := strings.Cut(f, "=")
			if !ok {
				c.t.Fatalf("no field: %q", line)
			}
			e[name] = value
		}
		all = append(all, fmt.Sprintf("%s %s %s", kind, e["datetime"], e["aCode"]))
	}
	return all
}

// same fails the test unless got and want contain the same events equally often.
func same(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	count := map[string]int{}
	for _, e := range want {
		count[e]++
	}
	for _, e := range got {
		count[e]--
	}
	maps.DeleteFunc(count, func(_ string, n int) bool { return n == 0 })
	wrong := slices.Sorted(maps.Keys(count))
	t.Fatalf("%d events, not %d; wrong are %d, such as %q", len(got), len(want), len(wrong), wrong[:min(3, len(wrong))])
}
