package telemetry

import (
	"context"
	"net"
	"sync"
	"time"

	"mimecast-proxy/event"
)

// rejectedInterval is the minimum time between two log lines about requests rejected
// for the same reason. Anyone can send any number of such requests.
const rejectedInterval = time.Second

// rejections limits the log lines of rejected requests, by code.
type rejections struct {
	mu    sync.Mutex
	byRow [event.Count]rejection // by [event.Code.Index]
}

// rejection is the state of one code since its last log line. The zero value logs the
// next request at once.
type rejection struct {
	limited bool
	// count is the number of requests without a log line. rec is the last of them, and
	// o its outcome.
	count int
	rec   *record
	o     *outcome
}

// accessRejected logs a rejected request, or counts it if a line with its code was
// logged within the last second.
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

// logLastRejected writes the line for all requests without one, if there are any, and
// reports whether it did. If not, the next request is logged at once.
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

// logRejected writes all pending lines, before the log is closed.
func (t *Telemetry) logRejected() {
	for row := range kinds {
		t.logLastRejected(row)
	}
}

// Malformed records a request that net/http rejected before it reached a handler. Only
// its peer is known. It returns the request's ID.
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
