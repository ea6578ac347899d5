package api1_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
)

// A page of batches with 40 files of 1 MiB each needs no more memory than one of small
// files. Their stated size is small, so that all come in one response.
func TestMemoryIsBoundedWhateverABatchHolds(t *testing.T) {
	suite.Slow(t)
	files := 40
	if testing.Short() {
		files = 10
	}
	for _, c := range []collector{{}, {json: true, compress: true}} {
		t.Run(fmt.Sprintf("JSON %t, zipped %t", c.json, c.compress), func(t *testing.T) {
			f := newFake(t)
			f.sizes = 1
			line := f.event(map[string]any{"subject": strings.Repeat("s", 1000), "recipients": strings.Repeat("r", 1000)}) + "\n"
			for i := range files {
				name := fmt.Sprintf("/%d", i)
				f.batches["receipt"] = append(f.batches["receipt"], name)
				f.files[name] = func(w http.ResponseWriter, _ *http.Request) {
					z, _ := gzip.NewWriterLevel(w, gzip.NoCompression)
					for range 1 << 20 / len(line) {
						_, _ = io.WriteString(z, line)
					}
					_ = z.Close()
				}
			}
			col := f.collector()
			col.json, col.compress = c.json, c.compress
			col.post("/api/login/logout", nil).Body.Close() // opens the connection
			peak := watchHeap()
			res := col.post("/api/audit/get-siem-logs", col.body())
			n, err := io.Copy(io.Discard, res.Body)
			res.Body.Close()
			more := peak()
			if err != nil || res.StatusCode != 200 || !c.compress && n < int64(files)<<20*9/10 {
				t.Fatalf("status %d, %d bytes: %v", res.StatusCode, n, err)
			}
			t.Logf("%d KiB more at most", more>>10)
			if more > 16<<20 {
				t.Errorf("%d KiB more memory", more>>10)
			}
		})
	}
}

// watchHeap measures the heap until the returned func is called. The func returns the peak
// increase in bytes.
func watchHeap() (peak func() int64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapInuse
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return int64(most.Load()) - int64(before)
	}
}
