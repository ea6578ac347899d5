package app

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// leastHeap is how large the heap may grow, in bytes, before garbage is
// collected. Go's default is twice what is live, which for an idle proxy's few
// MiB means a collection every few hundred requests, and a tenth of its CPU.
const leastHeap = 16 << 20

// relaxCollector makes that so, for the life of the process. GOMEMLIMIT holds in any
// case.
var relaxCollector = sync.OnceFunc(adjustCollector)

// adjustCollector judges what the collection before has left, and is called
// again after the next one.
func adjustCollector() {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	metrics.Read(s)
	debug.SetGCPercent(collectorPercent(s[0].Value.Uint64(), s[1].Value.Uint64()))
	runtime.AddCleanup(new([64]byte), func(struct{}) { adjustCollector() }, struct{}{})
}

// collectorPercent returns what GOGC has to be with so many bytes live, of which so many
// have to be scanned. Beyond leastHeap the heap doubles as by default, but grows no
// further than a collection is worth: kept request bodies are not scanned, so that a
// collection costs little, and doubling would take as much memory again. GOGC also
// multiplies the 4 MiB that the runtime takes for the least heap.
func collectorPercent(live, scanned uint64) int {
	const least, most = 10, 100 * leastHeap / (4 << 20)
	if live == 0 { // before the first collection
		return most
	}
	growth := min(live, max(leastHeap, scanned))
	if live+growth < leastHeap {
		growth = leastHeap - live
	}
	return int(min(most, max(least, 100*growth/live)))
}

const (
	// A proxy that allocates less than little bytes within quiet is idle: probes
	// and scrapes take no more.
	quiet  = 4 * time.Second
	little = 512 << 10
	// worthwhile is how many bytes of garbage are worth a collection.
	worthwhile = 2 << 20
)

// tidy gives memory back to the system whenever the proxy falls idle, until ctx
// ends: what its start has left behind, and what its work has. Nothing else would
// do that before the heap has grown to leastHeap again.
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
			runtime.GC() // what a sync.Pool holds outlives one collection
			debug.FreeOSMemory()
			tidied = now
		}
		last = now
	}
}

// allocated returns how many bytes of heap have been allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
