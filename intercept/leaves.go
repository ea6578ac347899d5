package intercept

import (
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// maxLeaves bounds the certificates that are kept. Names below a permitted one are without
// number.
const maxLeaves = 64

// leafCache keeps the certificates that were used last.
type leafCache struct {
	mu     sync.Mutex // not held while a certificate is made
	recent []*leafEntry
}

// leafEntry is a certificate, or the one that a goroutine is making.
type leafEntry struct {
	name    string
	renewAt time.Time
	made    sync.Once
	leaf    *tls.Certificate
	err     error
}

// get returns the certificate of a name, and has it made if there is none.
func (c *leafCache) get(name string, now time.Time, issue func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	e := c.entry(name, now)
	e.made.Do(func() { e.leaf, e.err = issue() })
	if e.err != nil {
		c.remove(e)
	}
	return e.leaf, e.err
}

// entry returns the entry of a name, as the most recent one.
func (c *leafCache) entry(name string, now time.Time) *leafEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.recent, func(e *leafEntry) bool { return e.name == name })
	var e *leafEntry
	if i >= 0 {
		e = c.recent[i]
		c.recent = slices.Delete(c.recent, i, i+1)
	}
	if e == nil || !now.Before(e.renewAt) {
		e = &leafEntry{name: name, renewAt: now.Add(leafLifetime / 2)}
	}
	c.recent = append(c.recent, e)
	if len(c.recent) > maxLeaves {
		c.recent = slices.Delete(c.recent, 0, 1)
	}
	return e
}

func (c *leafCache) remove(e *leafEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent = slices.DeleteFunc(c.recent, func(other *leafEntry) bool { return other == e })
}
