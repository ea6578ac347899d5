package app

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// leastHeap is how large the heap may grow, in bytes, before garbage is
// collected. Go's default is twice what is live, which for an idle proxy's few
// MiB means a collection every few hundred requests, and a tenth of its CPU.
const leastHeap = 16 << 20

// relaxCollector makes that so, for the life of the process. From leastHeap on
// the default holds, and GOMEMLIMIT in any case.
var relaxCollector = sync.OnceFunc(adjustCollector)

// adjustCollector judges what the collection before has left, and is called
// again after the next one.
func adjustCollector() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	debug.SetGCPercent(collectorPercent(live[0].Value.Uint64()))
	runtime.AddCleanup(new([64]byte), func(struct{}) { adjustCollector() }, struct{}{})
}

// collectorPercent returns what GOGC has to be with so many bytes live. It also
// multiplies the 4 MiB that the runtime takes for the least heap.
func collectorPercent(live uint64) int {
	const normal, most = 100, 100 * leastHeap / (4 << 20)
	if live == 0 { // before the first collection
		return most
	}
	return min(most, max(normal, int(100*leastHeap/live)-100))
}
