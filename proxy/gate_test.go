package proxy

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestTurnsGoInTheOrderOfArrivalAndAfterTheLatestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		began := time.Now()
		deadline := began.Add(time.Hour)
		went := make(chan int, 10)
		for i := range 10 {
			p := g.join("/siem")
			// Each is told of another reset, the first of the latest.
			p.limit(began.Add(time.Duration(10-i) * time.Second))
			go func() {
				defer p.leave()
				if err := p.await(t.Context(), deadline); err != nil {
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
		if len(g.lines) != 0 || g.held != 0 {
			t.Errorf("%d lines and %d places are left", len(g.lines), g.held)
		}
	})
}

func TestWhoIsFirstWaitsForAResetThatComesToLightMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		began := time.Now()
		first, second := g.join("/siem"), g.join("/siem")
		defer second.leave()
		first.limit(began.Add(time.Second))
		time.AfterFunc(500*time.Millisecond, func() { second.limit(began.Add(3 * time.Second)) })
		if err := first.await(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("it went after %v, %v", time.Since(began), err)
		}
		first.leave()
		if err := second.await(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("the next went after %v, %v", time.Since(began), err)
		}
	})
}

func TestOneLineDoesNotHoldUpAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		slow, other := g.join("/siem"), g.join("/api")
		defer slow.leave()
		defer other.leave()
		slow.limit(time.Now().Add(time.Minute))
		began := time.Now()
		if err := other.await(t.Context(), began.Add(time.Hour)); err != nil || time.Since(began) != 0 {
			t.Errorf("it waited %v, %v", time.Since(began), err)
		}
	})
}

func TestWaitEndsWithTheDeadlineOrTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		first, second := g.join("/siem"), g.join("/siem")
		defer first.leave()
		if err := second.await(t.Context(), time.Now().Add(time.Second)); !errors.Is(err, errNoTurn) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := second.await(ctx, time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		second.leave()
		// Who leaves from the middle is not waited for.
		third := g.join("/siem")
		defer third.leave()
		if !first.called() || third.called() {
			t.Error("the turn went astray")
		}
	})
}
