package api1_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/api1"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// slowWriter is the response to a client that reads nothing until read is closed.
type slowWriter struct {
	*httptest.ResponseRecorder
	read chan struct{}
}

func (w slowWriter) Write(b []byte) (int, error) {
	<-w.read
	return w.ResponseRecorder.Write(b)
}

// Each translation keeps a page in memory while its client reads. Translations that wait
// for Mimecast's response do not count.
func TestTranslationsAtATimeAreBounded(t *testing.T) {
	for _, c := range []struct{ most, share, slow int }{{0, 0, 5}, {1, 0, 1}, {2, 0, 2}, {4, 9, 2}, {2, 9, 1}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			f := newFake(t)
			f.stream["receipt"] = []string{f.event(nil)}
			synctest.Test(t, func(t *testing.T) { boundTranslations(t, f, c.most, c.share, c.slow) })
		})
	}
}

func boundTranslations(t *testing.T, f *fake, most, share, slow int) {
	var failed []event.Code
	f.trace.Failed = func(_ context.Context, p *problem.Problem) { failed = append(failed, p.Code) }
	hang := make(chan struct{})
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("User-Agent") == "hangs" {
			<-hang
		}
		f.serveAPI(w, r)
	})
	layer := api1.Wrap(api1.Options{Translate: true, MaxTranslations: most, Now: f.clock.Now, Trace: f.trace})(next)
	a, b := new(account.Account), new(account.Account)
	a.SetShare(share, 0)
	b.SetShare(share, 0)
	call := func(w http.ResponseWriter, of *account.Account, path, userAgent string) {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set("User-Agent", userAgent)
		layer.ServeHTTP(w, r.WithContext(account.NewContext(r.Context(), of, "")))
	}
	const path = "/api/audit/get-siem-logs"
	status := func(of *account.Account, path string) (int, http.Header) {
		w := httptest.NewRecorder()
		call(w, of, path, "")
		return w.Code, w.Header()
	}
	var calls sync.WaitGroup
	for range most + 1 { // these keep no page yet
		calls.Go(func() { call(httptest.NewRecorder(), a, path, "hangs") })
	}
	synctest.Wait()
	if got, _ := status(a, path); got != 200 {
		t.Errorf("beside calls that wait for Mimecast: %d", got)
	}
	read := make(chan struct{})
	for range slow {
		calls.Go(func() { call(slowWriter{httptest.NewRecorder(), read}, a, path, "") })
	}
	synctest.Wait()
	got, header := status(a, path)
	if most == 0 {
		if got != 200 {
			t.Errorf("without a bound: %d", got)
		}
	} else if got != 503 || header.Get(problem.Header) != string(event.TooBusy) || header.Get("Retry-After") != "1" || header.Get(api1.Header) != "translated" {
		t.Errorf("%d %v", got, header)
	} else if !slices.Equal(failed, []event.Code{event.TooBusy}) {
		t.Errorf("reported was %v", failed)
	}
	if got, _ := status(a, "/api/login/logout"); got != 200 {
		t.Errorf("a login call got %d", got)
	}
	if share > 0 {
		if got, _ := status(b, path); got != 200 {
			t.Errorf("another account got %d", got)
		}
	}
	time.AfterFunc(time.Second, func() { close(read) })
	if got, _ := status(a, path); got != 200 { // waits for a place
		t.Errorf("then %d", got)
	}
	close(hang)
	calls.Wait()
}

// measuringWriter measures the heap at the first write, where a slow client would block.
type measuringWriter struct {
	http.ResponseWriter
	heap uint64
}

func (w *measuringWriter) Write(b []byte) (int, error) {
	if w.heap == 0 {
		w.heap = heapInUse()
	}
	return w.ResponseWriter.Write(b)
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Once decoded, the raw page must not stay in memory while a client reads slowly.
func TestPageIsNotKeptOnceDecoded(t *testing.T) {
	f := newFake(t)
	f.page = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"value":[%s`, strings.TrimSuffix(f.event(nil), "}"))
		for range 7 { // whitespace without meaning
			_, _ = io.WriteString(w, strings.Repeat(" ", 1<<20))
		}
		_, _ = io.WriteString(w, `}],"@nextPage":"end","isCaughtUp":true}`)
	}
	layer := api1.Wrap(api1.Options{Translate: true, Now: f.clock.Now})(http.HandlerFunc(f.serveAPI))
	before := heapInUse()
	w := &measuringWriter{ResponseWriter: httptest.NewRecorder()}
	layer.ServeHTTP(w, httptest.NewRequest("POST", "/api/audit/get-siem-logs", nil))
	if w.heap == 0 || int64(w.heap)-int64(before) > 4<<20 {
		t.Errorf("%d KiB more memory", (int64(w.heap)-int64(before))>>10)
	}
}
