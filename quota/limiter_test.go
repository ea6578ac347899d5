package quota

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
)

func TestTurnsGoInTheOrderOfArrivalAndAfterTheLatestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{places: new(places)}
		began := time.Now()
		deadline := began.Add(time.Hour)
		went := make(chan int, 10)
		for i := range 10 {
			p := l.enqueue(functionKey{path: "/siem"}, "c")
			// Each gets a different reset; the first gets the latest.
			p.limit(began.Add(time.Duration(10-i) * time.Second))
			go func() {
				defer p.release()
				if err := p.waitForReset(t.Context(), deadline); err != nil {
					t.Error(err)
				}
				if early := 10*time.Second - time.Since(began); early > 0 {
					t.Errorf("%d went %v early", i, early)
				}
				went <- i
			}()
		}
		var order []int
		for range 10 {
			order = append(order, <-went)
		}
		if !slices.IsSorted(order) {
			t.Errorf("they went in the order %v", order)
		}
		synctest.Wait()
		if len(l.queues)+len(l.places.accounts)+len(l.places.clients)+len(l.places.functions) != 0 || l.places.held != 0 {
			t.Errorf("%d queues and %d places are left", len(l.queues), l.places.held)
		}
	})
}

func TestWhoIsFirstWaitsForAResetThatComesToLightMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{places: new(places)}
		began := time.Now()
		first, second := l.enqueue(functionKey{path: "/siem"}, "c"), l.enqueue(functionKey{path: "/siem"}, "c")
		defer second.release()
		first.limit(began.Add(time.Second))
		time.AfterFunc(500*time.Millisecond, func() { second.limit(began.Add(3 * time.Second)) })
		if err := first.waitForReset(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("it went after %v, %v", time.Since(began), err)
		}
		first.release()
		if err := second.waitForReset(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("the next went after %v, %v", time.Since(began), err)
		}
	})
}

func TestOneQueueDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{places: new(places)}
		slow, other := l.enqueue(functionKey{path: "/siem"}, "c"), l.enqueue(functionKey{path: "/api"}, "c")
		defer slow.release()
		defer other.release()
		slow.limit(time.Now().Add(time.Minute))
		began := time.Now()
		if err := other.waitForReset(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 0 {
			t.Errorf("it waited %v, %v", time.Since(began), err)
		}
	})
}

func TestWaitEndsWithTheDeadlineOrTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiter{places: new(places)}
		first, second := l.enqueue(functionKey{path: "/siem"}, "c"), l.enqueue(functionKey{path: "/siem"}, "c")
		defer first.release()
		if err := second.waitForReset(t.Context(), time.Now().Add(time.Second)); !errors.Is(err, errDeadline) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := second.waitForReset(ctx, time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		second.release()
		// A ticket that leaves from the middle does not block the others.
		third := l.enqueue(functionKey{path: "/siem"}, "c")
		defer third.release()
		if !first.ready() || third.ready() {
			t.Error("the turn went astray")
		}
	})
}

func TestOneClientLeavesPlacesInTheQueuesToOthers(t *testing.T) {
	l := limiter{places: new(places)}
	count := func(path, client string) (n int) {
		for l.enqueue(functionKey{path: path}, client) != nil {
			n++
		}
		return n
	}
	if n := count("/a", "greedy"); n != maxHeldClient {
		t.Errorf("one client takes %d places", n)
	}
	if n := count("/b", "greedy"); n != 0 {
		t.Errorf("and %d more at another function", n)
	}
	if n := count("/a", "second"); n != maxHeldFunction-maxHeldClient {
		t.Errorf("a second client gets %d places of that function", n)
	}
	if n := count("/b", "second"); n != maxHeld-maxHeldFunction {
		t.Errorf("a second client gets %d places of another function", n)
	}
}

func TestOneAccountLeavesPlacesInTheQueuesToOthers(t *testing.T) {
	l := limiter{places: new(places)}
	count := func(a *account.Account, path, client string) (n int) {
		for l.enqueue(functionKey{a, path}, client) != nil {
			n++
		}
		return n
	}
	accounts := make([]account.Account, 4)
	for i := range accounts {
		accounts[i].SetShare(100, 0)
	}
	greedy := &accounts[0]
	if n := count(greedy, "/a", "first"); n != maxHeldClient/2 {
		t.Errorf("one client takes %d places", n)
	}
	if n := count(greedy, "/a", "second"); n != maxHeldFunction/2-maxHeldClient/2 {
		t.Errorf("a second client takes %d places of that function", n)
	}
	if n := count(greedy, "/b", "second") + count(greedy, "/b", "third"); n != maxHeld/2-maxHeldFunction/2 {
		t.Errorf("the account takes %d more", n)
	}
	for i, want := range []int{32, 16, 8} { // half of the remaining places
		if n := count(&accounts[i+1], "/a", "first"); n != want {
			t.Errorf("another account gets %d places, want %d", n, want)
		}
	}
}
