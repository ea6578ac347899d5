package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// leastHeap is the heap size, in bytes, at which garbage collection starts. Go's default is
// twice the live heap. For an idle proxy's few MiB, that means a collection every few
// hundred requests, and a tenth of its CPU.
const leastHeap = 16 << 20

// relaxCollector sets the heap's growth for the life of the process. GOMEMLIMIT applies in
// any case.
var relaxCollector = sync.OnceFunc(adjustCollector)

// adjustCollector sets GOGC for the heap that the last collection left. It schedules itself
// to run after the next collection.
func adjustCollector() {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(s)
	debug.SetGCPercent(collectorPercent(s[0].Value.Uint64(), s[1].Value.Uint64()))
	runtime.AddCleanup(new([64]byte), func(struct{}) { adjustCollector() }, struct{}{})
}

// collectorPercent returns the GOGC value for live bytes of heap, of which scanned bytes
// contain pointers. The heap grows to leastHeap, then by half of that, or by scanned if
// that is more. Kept request bodies contain no pointers: collecting them is cheap, and
// doubling would take as much memory again. The runtime also scales its minimum heap of
// 4 MiB by GOGC.
func collectorPercent(live, scanned uint64) int {
	const least, most = 10, 100 * leastHeap / (4 << 20)
	if live == 0 { // before the first collection
		return most
	}
	growth := max(leastHeap-min(live, leastHeap), leastHeap/2, min(live, scanned))
	return int(min(most, max(least, 100*growth/live)))
}

const (
	// A proxy that allocates less than little bytes within quiet is idle. Probes and
	// scrapes allocate no more.
	quiet  = 4 * time.Second
	little = 512 << 10
	// worthwhile is how many bytes must be allocated before tidy collects garbage again.
	worthwhile = 2 << 20
)

// tidy returns memory to the system whenever the proxy becomes idle, until ctx ends. Otherwise
// garbage from startup and requests would remain until the heap reaches leastHeap.
func tidy(ctx context.Context) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	var tidied uint64
	for last := allocated(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := allocated()
		if now-last < little && now-tidied >= worthwhile {
			runtime.GC() // a sync.Pool keeps its items for one more collection
			debug.FreeOSMemory()
			tidied = now
		}
		last = now
	}
}

// allocated returns the total number of heap bytes allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
