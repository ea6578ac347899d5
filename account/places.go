package account

import (
	"context"
	"slices"
	"sync"
)

// Places are what requests of all accounts take one of for a while, such as a connection to
// a host. As soon as several accounts are in use, none gets more than half of the places.
// nil has no bound. Make it with [NewPlaces].
type Places struct {
	most int

	mu      sync.Mutex
	taken   int              // guarded by mu, as all below
	of      map[*Account]int // how many each account has
	waiting []*waiter        // in the order of their coming
}

// waiter waits for a place. It has one once ready is closed.
type waiter struct {
	account *Account
	ready   chan struct{}
}

// NewPlaces returns that many places; 0: no bound.
func NewPlaces(most int) *Places {
	if most <= 0 {
		return nil
	}
	return &Places{most: most, of: map[*Account]int{}}
}

// Take waits for a place, which [Places.Release] gives back. It returns the context's error
// if that ends first. A nil account stands for requests without one.
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
	return nil // it got one meanwhile
}

// take takes a place, or reports that there is none. The caller holds mu.
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

// Release gives a place of an account back, to the first that waits and may have it.
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

// Unused reports whether nobody has or awaits a place.
func (p *Places) Unused() bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken == 0 && len(p.waiting) == 0
}
