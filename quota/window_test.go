package quota

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mimecast-proxy/mimecast"
)

// Each call is counted once, in whatever order the calls end.
func TestCallsThatEndInAnyOrderAreCountedOnce(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test is to be repeatable
		w, now := window{}, time.Now()
		left := int64(1_000_000) // at Mimecast
		respond := func(call uint64) {
			left--
			w.land(call)
			w.observe(response{mimecast.Quota{Limit: 1_000_000, Remaining: left, ResetMS: 3_600_000}, call, now, now})
		}
		respond(w.send(now))
		var flying []uint64
		take := func() uint64 {
			i := random.IntN(len(flying))
			call := flying[i]
			flying = slices.Delete(flying, i, i+1)
			return call
		}
		for range 300 {
			switch n := random.IntN(5); {
			case n < 2 || len(flying) == 0:
				flying = append(flying, w.send(now))
			case n == 2:
				respond(take())
			default:
				w.takeBack(take())
			}
			if slices.ContainsFunc(w.unsent, func(call uint64) bool { return call <= w.counted || call > w.sent }) {
				t.Fatalf("seed %d: %v between %d and %d", seed, w.unsent, w.counted, w.sent)
			}
			if w.flying != len(flying) || w.pending() < 0 || w.pending() > int64(len(flying)) || w.lost() > 0 {
				t.Fatalf("seed %d: %d under way, %d pending, want %d", seed, w.flying, w.pending(), len(flying))
			}
			if w.certain() > float64(left) || w.certain() < float64(left)-float64(len(flying)) {
				t.Fatalf("seed %d: %v are left, of %d less %d", seed, w.certain(), left, len(flying))
			}
		}
		for len(flying) > 0 {
			w.takeBack(take())
		}
		if w.pending() != 0 || w.certain() != float64(left) || w.foreign() != 0 {
			t.Errorf("seed %d: %d pending, %v left of %d, %d by others", seed, w.pending(), w.certain(), left, w.foreign())
		}
	}
}
