package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWindowsTakeAnEighthOfTheMemory(t *testing.T) {
	for limit, want := range map[int64]windows{
		0:         {1 << 20, 256 << 10, 0},
		32 << 20:  {64 << 10, 64 << 10, 128}, // the minimum
		64 << 20:  {64 << 10, 64 << 10, 128},
		128 << 20: {128 << 10, 128 << 10, 128},
		1 << 30:   {1 << 20, 256 << 10, 128},
		8 << 30:   {4 << 20, 256 << 10, 256},
	} {
		got := windowsFor(limit)
		if got != want {
			t.Errorf("%d MiB: %+v, want %+v", limit>>20, got, want)
		}
		if total := int64(got.perStream) * int64(got.streams); limit >= 64<<20 && total > limit/8 {
			t.Errorf("%d MiB: the windows take %d MiB", limit>>20, total>>20)
		}
	}
}

// take acquires a place and receives a response in it.
func take(t *testing.T, r *receivers) *http.Response {
	t.Helper()
	place, err := r.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return place.receive(&http.Response{ProtoMajor: 2, Body: io.NopCloser(strings.NewReader("0123456789"))})
}

func TestPlacesComeBackWithTheEndOfABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceivers(1)
		for name, end := range map[string]func(*http.Response){
			"read":   func(res *http.Response) { _, _ = io.ReadAll(res.Body) },
			"closed": func(res *http.Response) { res.Body.Close(); res.Body.Close() },
			"both":   func(res *http.Response) { _, _ = io.ReadAll(res.Body); res.Body.Close() },
		} {
			end(take(t, r))
			if len(r.free) != 1 || len(r.held) != 0 {
				t.Errorf("%s: %d places, %d held", name, len(r.free), len(r.held))
			}
		}
		place, _ := r.acquire(t.Context())
		place.receive(&http.Response{ProtoMajor: 1, Body: io.NopCloser(nil)})
		if len(r.free) != 1 {
			t.Error("HTTP/1.1, which has no windows, keeps a place")
		}
	})
}

func TestTheResponseThatStalledForLongestIsCutForOneThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceivers(3)
		longest := take(t, r)
		time.Sleep(time.Second)
		other, busy := take(t, r), take(t, r)
		var reading sync.WaitGroup
		reading.Go(func() {
			for range 5 {
				_, _ = busy.Body.Read(make([]byte, 1))
				time.Sleep(time.Second)
			}
		})
		began := time.Now()
		take(t, r) // takes the place of the longest
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("it waited %v", took)
		}
		if _, err := longest.Body.Read(make([]byte, 1)); !errors.Is(err, errStalled) {
			t.Errorf("it goes on: %v", err)
		}
		reading.Wait()
		for _, res := range []*http.Response{other, busy} {
			if _, err := res.Body.Read(make([]byte, 1)); err != nil {
				t.Errorf("another was cut: %v", err)
			}
		}
	})
}

func TestAWaitForAPlaceEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceivers(1)
		r.acquire(t.Context()) // has no response yet, so it cannot stall
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := r.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
