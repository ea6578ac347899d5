package app

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"
)

func TestCollectorLetsTheHeapGrowAsFarAsACollectionIsWorth(t *testing.T) {
	for _, c := range []struct{ live, scanned, want uint64 }{
		{0, 0, 400}, {1, 1, 400}, {2, 1, 400}, {4, 2, 300}, {8, 4, 100}, {9, 4, 88}, {16, 8, 50},
		{64, 8, 12}, {64, 32, 50}, {1024, 16, 10}, {1024, 1024, 100},
	} {
		if got := collectorPercent(c.live<<20, c.scanned<<20); got != int(c.want) {
			t.Errorf("%d MiB live, %d of them scanned: %d, want %d", c.live, c.scanned, got, c.want)
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
	within("much is live", 64<<20, 1.5*64*(1<<20))
	runtime.KeepAlive(much)
	within("little again", leastHeap, 1.5*leastHeap)
}

func TestMemoryIsGivenBackOnceTheProxyFallsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go tidy(ctx)
		collections := func() uint32 {
			synctest.Wait()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.NumForcedGC
		}
		var kept []byte
		work := func() { kept = make([]byte, 8<<20) }
		time.Sleep(quiet / 2) // do the work between two ticks of tidy
		before := collections()
		for range 5 {
			work()
			time.Sleep(quiet)
		}
		if n := collections() - before; n != 0 {
			t.Errorf("%d collections while there was work", n)
		}
		time.Sleep(quiet)
		after := collections()
		if after == before {
			t.Error("no collection when the work had ended")
		}
		time.Sleep(10 * quiet)
		if n := collections() - after; n != 0 {
			t.Errorf("%d collections of nothing", n)
		}
		runtime.KeepAlive(kept)
	})
}
