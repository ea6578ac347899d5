package api1_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"mimecast-proxy/api1"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

// Each translation keeps a page in memory for as long as its client reads.
func TestTranslationsAtATimeAreBounded(t *testing.T) {
	for _, most := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			f := newFake(t)
			var failed *problem.Problem
			f.trace.Failed = func(_ context.Context, p *problem.Problem) { failed = p }
			f.stream["receipt"] = []string{f.event(nil)}
			arrived, release := make(chan struct{}), make(chan struct{})
			next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("X-Mc-Accountcode") == "slow" {
					arrived <- struct{}{}
					<-release
					r.Header.Del("X-Mc-Accountcode")
				}
				f.serveAPI(w, r)
			})
			layer := api1.Wrap(api1.Options{Translate: true, MaxTranslations: most, Now: f.clock.Now, Trace: f.trace})(next)
			call := func(path, accountCode string) *httptest.ResponseRecorder {
				r := httptest.NewRequest("POST", path, nil)
				r.Header.Set("X-Mc-Accountcode", accountCode)
				w := httptest.NewRecorder()
				layer.ServeHTTP(w, r)
				return w
			}
			const path = "/api/audit/get-siem-logs"
			slow := max(most, 1)
			done := make(chan *httptest.ResponseRecorder)
			for range slow {
				go func() { done <- call(path, "slow") }()
				<-arrived
			}
			if w := call("/api/login/logout", ""); w.Code != 200 {
				t.Errorf("a login call got %d", w.Code)
			}
			w := call(path, "")
			if most == 0 {
				if w.Code != 200 {
					t.Errorf("without a bound: %d %s", w.Code, w.Body)
				}
			} else if w.Code != 503 || w.Header().Get(problem.Header) != string(event.TooBusy) || w.Header().Get("Retry-After") != "1" || w.Header().Get(api1.Header) != "translated" {
				t.Errorf("%d %v", w.Code, w.Header())
			} else if failed == nil || failed.Code != event.TooBusy {
				t.Errorf("reported was %v", failed)
			}
			// The slow ones ask for ten types each, and wait at each page.
			go func() {
				for range arrived {
				}
			}()
			close(release)
			for range slow {
				if w := <-done; w.Code != 200 {
					t.Errorf("a slow call got %d", w.Code)
				}
			}
			close(arrived)
			if w := call(path, ""); w.Code != 200 {
				t.Errorf("then %d %s", w.Code, w.Body)
			}
		})
	}
}

// measuringWriter measures the heap at the first write, as one of a slow client would be.
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

// The page as it came is of no use to a client that reads its events slowly.
func TestPageIsNotKeptOnceDecoded(t *testing.T) {
	f := newFake(t)
	f.page = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"value":[%s`, strings.TrimSuffix(f.event(nil), "}"))
		for range 7 { // bytes that mean nothing
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
