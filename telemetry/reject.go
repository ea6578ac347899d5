package telemetry

import (
	"context"
	"net"
	"sync"
	"time"

	"mimecast-proxy/event"
)

// rejectedInterval is the time from one line about requests that were rejected for
// a reason to the next: strangers can cause any number of them.
const rejectedInterval = time.Second

// rejections limit the lines of rejected requests, by code.
type rejections struct {
	mu    sync.Mutex
	byRow [event.Count]rejection // by [event.Code.Index]
}

// rejection is what happened since the last line. The zero value is long ago.
type rejection struct {
	limited bool
	// count requests have no line yet; the last one is rec, which ended as o.
	count int
	rec   *record
	o     *outcome
}

// accessRejected writes the line of a rejected request, or the line of the last
// one of a second.
func (t *Telemetry) accessRejected(rec *record, o *outcome) {
	t.rejected.mu.Lock()
	row := o.fault.Index()
	r := &t.rejected.byRow[row]
	limited := r.limited
	if limited {
		r.count, r.rec, r.o = r.count+1, rec, o
	}
	r.limited = true
	t.rejected.mu.Unlock()
	if limited {
		return
	}
	time.AfterFunc(rejectedInterval, func() { t.endRejectedInterval(row) })
	t.writeAccess(rec, o, 0)
}

func (t *Telemetry) endRejectedInterval(row int) {
	if t.logLastRejected(row) {
		time.AfterFunc(rejectedInterval, func() { t.endRejectedInterval(row) })
	}
}

// logLastRejected writes the line that stands for all that have none, if any do;
// else the next request gets a line at once.
func (t *Telemetry) logLastRejected(row int) bool {
	t.rejected.mu.Lock()
	r := t.rejected.byRow[row]
	t.rejected.byRow[row] = rejection{limited: r.count > 0}
	t.rejected.mu.Unlock()
	if r.count > 0 {
		t.writeAccess(r.rec, r.o, r.count-1)
	}
	return r.count > 0
}

// logRejected writes what would be written later.
func (t *Telemetry) logRejected() {
	for row := range kinds {
		t.logLastRejected(row)
	}
}

// Malformed counts, logs and remembers a request that net/http rejected before it
// reached a handler. Nothing of it is known but the peer. It returns the request's
// id.
func (t *Telemetry) Malformed(peer net.Addr, reason event.Code) (id string) {
	now := time.Now()
	rec := &record{Context: context.Background(), start: now, id: newRequestID(), peer: peerHost(peer.String())}
	rec.events.denied = reason
	o := outcome{events: rec.events, status: reason.Status(), fault: reason}
	t.metrics.denied.WithLabelValues(string(reason)).Inc()
	t.recent.addDenial(now, reason, false, "", "")
	t.metrics.observe(rec.method, &o)
	t.recent.addRequest(rec, &o)
	t.accessRejected(rec, &o)
	return rec.id
}
