package account_test

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"mimecast-proxy/account"
)

func TestAClientIsItsNameOrItsAddress(t *testing.T) {
	req := &http.Request{RemoteAddr: "[fe80::1]:80"}
	if c := account.ClientOf(req); c != "fe80::1" {
		t.Error(c)
	}
	if c := account.ClientOf(req.WithContext(account.NewContext(t.Context(), nil, "splunk"))); c != "splunk" {
		t.Error(c)
	}
	if c := account.ClientOf(&http.Request{RemoteAddr: "@"}); c != "@" {
		t.Error(c)
	}
}

func TestNoMoreRequestsEnterThanTheAccountMayHave(t *testing.T) {
	for limit, want := range map[int]int64{0: 40, 1: 1, 7: 7} {
		a := new(account.Account)
		a.SetShare(limit, 0)
		var entered atomic.Int64
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				if a.Enter(nil) {
					entered.Add(1)
				}
			})
		}
		all.Wait()
		if n := entered.Load(); n != want || a.InFlight() != int(n) {
			t.Errorf("%d at most: %d entered, %d in flight", limit, n, a.InFlight())
		}
		for range entered.Load() {
			a.Leave()
		}
		if a.InFlight() != 0 || !a.Enter(nil) {
			t.Errorf("%d at most: %d in flight after the end", limit, a.InFlight())
		}
	}
}

func TestNoMoreBytesAreKeptThanTheShare(t *testing.T) {
	a := new(account.Account)
	a.SetShare(0, 10)
	if !a.Keep(7) || a.Keep(4) || !a.Keep(3) || a.Keep(1) {
		t.Error("not 7, then 3 more")
	}
	a.Drop(3)
	if a.Keep(4) || !a.Keep(3) {
		t.Error("not as many as were dropped")
	}
	a.SetShare(0, 0)
	if !a.Keep(1 << 40) {
		t.Error("a bound without a share")
	}
	if none := (*account.Account)(nil); !none.Keep(1 << 40) {
		t.Error("a bound without an account")
	} else {
		none.Drop(1 << 40)
	}
}
