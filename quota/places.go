package quota

import (
	"sync"

	"mimecast-proxy/account"
)

// The requests that wait are bounded, since each costs a socket and a body; the rest get
// their response at once. No client has more than half of the places, and no function of
// Mimecast's leaves nothing to the others.
const (
	maxHeld         = 128
	maxHeldClient   = 64
	maxHeldFunction = 96
)

// functionKey is what Mimecast counts by: each account has its own quota of each.
type functionKey struct {
	account *account.Account
	path    string
}

// places are where requests wait, for their turn or for a reset. The zero value is ready.
type places struct {
	mu        sync.Mutex
	held      int
	clients   map[string]int
	functions map[functionKey]int
}

// take takes a place, or reports that there is none.
func (p *places) take(f functionKey, client string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.clients == nil {
		p.clients, p.functions = map[string]int{}, map[functionKey]int{}
	}
	if p.held >= maxHeld || p.clients[client] >= maxHeldClient || p.functions[f] >= maxHeldFunction {
		return false
	}
	p.held++
	p.clients[client]++
	p.functions[f]++
	return true
}

// release gives a place back.
func (p *places) release(f functionKey, client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held--
	if p.clients[client]--; p.clients[client] == 0 {
		delete(p.clients, client)
	}
	if p.functions[f]--; p.functions[f] == 0 {
		delete(p.functions, f)
	}
}
