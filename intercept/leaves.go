package intercept

import (
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// maxLeaves is how many certificates are cached. A bound is needed, since permitted names have
// any number of subdomains.
const maxLeaves = 64

// leafCache caches the most recently used certificates. The zero value is empty and ready.
type leafCache struct {
	mu     sync.Mutex // guards recent; not held while a certificate is issued
	recent []*leafEntry
}

// leafEntry is a cached certificate. made blocks while a goroutine issues it.
type leafEntry struct {
	name    string
	renewAt time.Time
	made    sync.Once
	leaf    *tls.Certificate
	err     error
}

// get returns the certificate for a name. It calls issue if none is cached or the cached one is
// due for renewal.
func (c *leafCache) get(name string, now time.Time, issue func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	e := c.entry(name, now)
	e.made.Do(func() { e.leaf, e.err = issue() })
	if e.err != nil {
		c.remove(e)
	}
	return e.leaf, e.err
}

// entry returns the entry for a name, and marks it as the most recently used.
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
