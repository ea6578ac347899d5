package telemetry

import (
	"cmp"
	"sync"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
)

// maxRunning limits how many in-flight requests the status page lists.
const maxRunning = 50

// inFlightList is the in-flight requests, in order of arrival.
type inFlightList struct {
	mu             sync.Mutex // guards all, and the records' previous and next
	oldest, newest *record
}

func (l *inFlightList) add(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newest == nil {
		l.oldest, l.newest = r, r
		return
	}
	r.previous, l.newest.next = l.newest, r
	l.newest = r
}

func (l *inFlightList) remove(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.previous == nil {
		l.oldest = r.next
	} else {
		r.previous.next = r.next
	}
	if r.next == nil {
		l.newest = r.previous
	} else {
		r.next.previous = r.previous
	}
	r.previous, r.next = nil, nil
}

// each calls f for each request, oldest first, until f returns false.
func (l *inFlightList) each(f func(*record) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := l.oldest; r != nil; r = r.next {
		if !f(r) {
			return
		}
	}
}

// phase returns what the request waits for. The caller holds r.mu.
func (r *record) phase() event.Phase {
	switch {
	case r.body.reading.Load():
		return event.PhaseClient
	case !r.events.sent.IsZero():
		return event.PhaseMimecast
	case r.events.attempts > 0 && r.events.limited.IsZero(): // otherwise it waits for a rate limit after a 429
		return event.PhaseResponse
	default:
		return event.PhaseProxy
	}
}

// running returns the oldest in-flight requests, at most maxRunning.
func (l *inFlightList) running(now time.Time) []event.Running {
	all := []event.Running{}
	l.each(func(r *record) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = append(all, event.Running{
			RequestID: r.id, Began: r.start.UTC().Truncate(time.Millisecond), AgeMS: milliseconds(now.Sub(r.start)), Method: r.method,
			Path: truncate(r.path, maxShownPath), Client: cmp.Or(r.events.client, r.peer), Account: r.events.account,
			BytesIn: r.body.bytes.Load(), Phase: r.phase(),
		})
		return len(all) < maxRunning
	})
	return all
}

// Waiting returns the in-flight requests that wait for Mimecast's response. Others wait
// for their client or for the proxy.
func (t *Telemetry) Waiting() []event.Waiting {
	var all []event.Waiting
	t.inFlightList.each(func(r *record) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.phase() != event.PhaseMimecast {
			return true
		}
		since := r.events.sent
		if last := r.start.Add(time.Duration(r.body.last.Load())); last.After(since) {
			since = last
		}
		all = append(all, event.Waiting{Account: cmp.Or(r.events.account, account.Default), Since: since})
		return true
	})
	return all
}
