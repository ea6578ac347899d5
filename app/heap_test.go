package app

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestCollectorLetsASmallHeapGrowAndALargeOneDouble(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 1: 400, 2 << 20: 400, 4 << 20: 300, 8 << 20: 100, 9 << 20: 100, 1 << 30: 100,
	} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d bytes live: %d, want %d", live, got, want)
		}
	}
}

func TestCollectorFollowsWhatIsLive(t *testing.T) {
	relaxCollector()
	goal := func() float64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(s)
		return float64(s[0].Value.Uint64())
	}
	within := func(what string, least, most float64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			g := goal()
			if least <= g && g <= most {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the next collection is at %.0f bytes, want %.0f to %.0f", what, g, least, most)
			}
		}
	}
	within("little is live", leastHeap, 1.5*leastHeap)
	much := make([]byte, 64<<20)
	within("much is live", 2*64<<20, 2.5*64*(1<<20))
	runtime.KeepAlive(much)
	within("little again", leastHeap, 1.5*leastHeap)
}
