package api1_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"mimecast-proxy/api1"
)

// fake is an API 2.0 and an object store with a test's content. Types in batches are not
// caught up in the stream, so their events come from batches. All other types are caught
// up.
type fake struct {
	t     *testing.T
	clock *clock
	store string // the object store's URL
	trace api1.Trace

	mu      sync.Mutex
	stream  map[string][]string // events by type
	batches map[string][]string // file names by type
	sizes   int64               // size stated for each file
	files   map[string]http.HandlerFunc
	// page responds instead of the API, if set.
	page http.HandlerFunc
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, clock: newClock(), stream: map[string][]string{}, batches: map[string][]string{}, files: map[string]http.HandlerFunc{}}
	f.store = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "X-Mc-App-Id", "X-Mc-Accountcode", "Cookie", "Referer"} {
			if r.Header.Get(name) != "" {
				t.Errorf("the object store got %s", name)
			}
		}
		f.mu.Lock()
		h := f.files[r.URL.Path]
		f.mu.Unlock()
		if h == nil {
			http.Error(w, "expired", http.StatusForbidden)
			return
		}
		h(w, r)
	}))
	return f
}

// collector returns a collector that uses a proxy in front of the fake.
func (f *fake) collector() collector {
	download := &http.Transport{}
	f.t.Cleanup(download.CloseIdleConnections)
	wrap := api1.Wrap(api1.Options{Translate: true, Now: f.clock.Now, Download: download, Trace: f.trace})
	return collector{t: f.t, base: serve(f.t, wrap(http.HandlerFunc(f.serveAPI)))}
}

func (f *fake) serveAPI(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.ContentLength != 0 || r.Header.Get("X-Mc-Date") != "" || !strings.HasPrefix(r.RequestURI, "/siem/") {
		f.t.Errorf("%s %s has a body or the client's headers: %v", r.Method, r.RequestURI, r.Header)
	}
	if got := r.Header.Get("X-Mc-Accountcode"); got != "" && got != "C1" {
		f.t.Errorf("headers %v", r.Header)
	}
	if f.page != nil {
		f.page(w, r)
		return
	}
	q := r.URL.Query()
	kind := q.Get("types") + q.Get("type")
	behind := len(f.batches[kind]) > 0 && q.Get("dateRangeStartsAt") < f.clock.Now().Add(-2*time.Hour).Format(time.RFC3339)
	values := []string{}
	switch {
	case q.Get("nextPage") != "": // there is only one page
	case r.URL.Path == "/siem/v1/events/cg" && behind:
		_, _ = io.WriteString(w, `{"value":[{"timestamp":1}],"@nextPage":"more","isCaughtUp":false}`)
		return
	case r.URL.Path == "/siem/v1/events/cg":
		values = f.stream[kind]
	default:
		for _, name := range f.batches[kind] {
			values = append(values, fmt.Sprintf(`{"url":"%s%s?X-Amz-Signature=permission","expiry":"2030-01-01T00:00:00.000Z","size":%d}`, f.store, name, f.sizes))
		}
	}
	_, _ = fmt.Fprintf(w, `{"value":[%s],"@nextPage":"end","isCaughtUp":true}`, strings.Join(values, ","))
}

// event returns a receipt that happened three hours ago.
func (f *fake) event(fields map[string]any) string {
	e := map[string]any{"type": "receipt", "timestamp": f.clock.Now().Add(-3 * time.Hour).UnixMilli(), "accountId": "C1", "aggregateId": "code_1731621818"}
	for name, v := range fields {
		e[name] = v
	}
	b, err := json.Marshal(e)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(b)
}

func gzipped(lines ...string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, strings.Join(lines, "\n")+"\n")
	_ = z.Close()
	return b.Bytes()
}

func content(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
}

// truncated sends half of b and breaks off.
func truncated(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(b[:len(b)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func ask(c *collector) (*http.Response, string, error) {
	res := c.post("/api/audit/get-siem-logs", c.body())
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}
