package quota

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"mimecast-proxy/event"
)

// maxListed bounds the clients that a snapshot lists of a function.
const maxListed = 10

// Snapshot returns what is known of each function that has a quota, by account and path.
func (m *Model) Snapshot() []event.Quota {
	quotas := []event.Quota{}
	for _, f := range m.known() {
		m.mu.Lock() // anew for each, so that no call waits for all
		quotas = append(quotas, f.snapshot(time.Now()))
		m.mu.Unlock()
	}
	slices.SortFunc(quotas, func(a, b event.Quota) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), strings.Compare(a.Path, b.Path))
	})
	return quotas
}

func (m *Model) known() (all []*function) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, functions := range m.functions {
		all = slices.AppendSeq(all, maps.Values(functions))
	}
	return all
}

func (f *function) snapshot(now time.Time) event.Quota {
	f.advance(now)
	w := &f.window
	q := event.Quota{
		Function: f.label, Path: (&url.URL{Path: f.path}).EscapedPath(), Limit: w.limit, Remaining: w.remaining, SeenAt: f.seen,
		Others: uint64(w.foreign()), Waiting: len(f.waiters), Clients: []event.QuotaClient{}, //nolint:gosec // never negative
		Paced: maps.Clone(f.paced), WaitedMS: float64(f.waited) / float64(time.Millisecond),
	}
	if f.account != nil {
		q.Account = f.account.Name
	}
	if w.known() {
		q.Reset = now.Add(w.latest.Sub(now)).UTC() // by the clock of now
	}
	for _, c := range f.clients {
		q.Calls += c.calls
		q.Limited += c.limited
		if c.calls > 0 {
			q.Clients = append(q.Clients, event.QuotaClient{Client: c.name, Calls: c.calls, Limited: c.limited})
		}
	}
	slices.SortFunc(q.Clients, func(a, b event.QuotaClient) int {
		return cmp.Or(cmp.Compare(b.Calls, a.Calls), strings.Compare(a.Client, b.Client))
	})
	q.Clients = q.Clients[:min(len(q.Clients), maxListed)]
	return q
}
