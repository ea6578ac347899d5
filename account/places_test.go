package account_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
)

// takes reports whether an account gets a place at once.
func takes(p *account.Places, a *account.Account) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return p.Take(ctx, a) == nil
}

func TestNoAccountHasMoreThanHalfOfThePlaces(t *testing.T) {
	for _, c := range []struct{ most, shared, want, others int }{
		{0, 1, 100, 100}, {1, 0, 1, 0}, {4, 0, 4, 0}, {1, 1, 1, 0}, {2, 1, 1, 1}, {4, 1, 2, 2}, {5, 9, 2, 2},
	} {
		p := account.NewPlaces(c.most)
		a, b := new(account.Account), new(account.Account)
		a.SetShare(c.shared, 0)
		b.SetShare(c.shared, 0)
		for i, one := range []*account.Account{a, b} {
			got := 0
			for got < 100 && takes(p, one) {
				got++
			}
			if want := []int{c.want, c.others}[i]; got != want {
				t.Errorf("%+v: account %d got %d, want %d", c, i, got, want)
			}
			defer func() {
				for range got {
					p.Release(one)
				}
			}()
		}
	}
	p := account.NewPlaces(2) // requests without an account have no share
	for i, want := range []bool{true, true, false} {
		if takes(p, nil) != want {
			t.Errorf("request %d without an account", i)
		}
	}
}

// A place goes to the first waiter whose account may have one.
func TestPlacesAreGivenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := account.NewPlaces(2)
		a, b := new(account.Account), new(account.Account)
		a.SetShare(1, 0)
		b.SetShare(1, 0)
		if !takes(p, a) || !takes(p, b) {
			t.Fatal("no place")
		}
		order := make(chan string, 4)
		wait := func(name string, one *account.Account) {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				if p.Take(ctx, one) != nil {
					name += " gave up"
				}
				order <- name
			}()
			synctest.Wait()
		}
		wait("a1", a)
		wait("a2", a)
		wait("b1", b)
		p.Release(b)
		if got := <-order; got != "b1" {
			t.Errorf("first was %s", got)
		}
		p.Release(a)
		if got := <-order; got != "a1" {
			t.Errorf("then %s", got)
		}
		began := time.Now()
		if got := <-order; got != "a2 gave up" || time.Since(began) != time.Minute {
			t.Errorf("last was %s", got)
		}
		p.Release(a)
		p.Release(b)
		if !p.Unused() {
			t.Error("in use after the end")
		}
	})
}
