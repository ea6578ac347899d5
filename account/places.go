package account

import (
	"context"
	"slices"
	"sync"
)

// Places limits something that requests of all accounts share, such as connections to a
// host. If there are several accounts, each gets at most half of the places, but at
// least one. A nil *Places has no limit. Create it with [NewPlaces].
type Places struct {
	most int

	mu      sync.Mutex
	taken   int              // guarded by mu, as all below
	of      map[*Account]int // places per account
	waiting []*waiter        // in order of arrival
}

// waiter waits for a place. It has one once ready is closed.
type waiter struct {
	account *Account
	ready   chan struct{}
}

// NewPlaces returns Places with a limit of most; nil if most is 0 or less, which means
// no limit.
func NewPlaces(most int) *Places {
	if most <= 0 {
		return nil
	}
	return &Places{most: most, of: map[*Account]int{}}
}

// Take waits for a place. Return it with [Places.Release]. Take returns the context's
// error if the context ends first. A nil account stands for all requests without an
// account.
func (p *Places) Take(ctx context.Context, a *Account) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	if p.take(a) {
		p.mu.Unlock()
		return nil
	}
	w := &waiter{a, make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiting, w); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		return ctx.Err()
	}
	return nil // it got a place meanwhile
}

// take takes a place, or returns false if there is none for the account. The caller
// holds mu.
func (p *Places) take(a *Account) bool {
	share := p.most
	if a.IsOneOfSeveral() {
		share = max(1, p.most/2)
	}
	if p.taken >= p.most || p.of[a] >= share {
		return false
	}
	p.taken++
	p.of[a]++
	return true
}

// Release returns a place of an account. The first waiter whose account may have it
// gets it.
func (p *Places) Release(a *Account) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.of[a]--; p.of[a] == 0 {
		delete(p.of, a)
	}
	for i, w := range p.waiting {
		if p.take(w.account) {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			close(w.ready)
			return
		}
	}
}

// Unused reports whether no place is taken or awaited.
func (p *Places) Unused() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken == 0 && len(p.waiting) == 0
}
