package quota

import (
	"sync"

	"mimecast-proxy/account"
)

// The waiting requests are bounded, since each costs a socket and a body; the rest get
// their response at once. No client has more than half of the places, and no function has
// all of them. Each of several accounts has half of that, and takes no more places than it
// leaves free.
const (
	maxHeld         = 128
	maxHeldClient   = 64
	maxHeldFunction = 96
)

// clientKey is a client of an account.
type clientKey struct {
	account *account.Account
	name    string
}

// places are where requests wait, for their turn or for a reset. The zero value is ready.
type places struct {
	mu        sync.Mutex
	held      int
	accounts  map[*account.Account]int
	clients   map[clientKey]int
	functions map[functionKey]int
}

// take takes a place, or reports that there is none.
func (p *places) take(f functionKey, client string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.accounts == nil {
		p.accounts, p.clients, p.functions = map[*account.Account]int{}, map[clientKey]int{}, map[functionKey]int{}
	}
	c, free, parts := clientKey{f.account, client}, maxHeld-p.held, 1
	if f.account.IsOneOfSeveral() {
		free, parts = free-p.accounts[f.account], 2
	}
	if free <= 0 || p.clients[c] >= maxHeldClient/parts || p.functions[f] >= maxHeldFunction/parts {
		return false
	}
	p.held++
	p.accounts[f.account]++
	p.clients[c]++
	p.functions[f]++
	return true
}

// release gives a place back.
func (p *places) release(f functionKey, client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held--
	decrease(p.accounts, f.account)
	decrease(p.clients, clientKey{f.account, client})
	decrease(p.functions, f)
}

func decrease[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}
