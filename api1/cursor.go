package api1

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// lookBack is where a client without a token begins. API 1.0 gave a week; the
	// stream goes back a day, and a week of batches is more than their quota allows at
	// once.
	lookBack = 24 * time.Hour
	// farBehind is from when on a type is read from the batches.
	farBehind = 2 * time.Hour
	// settled is the age at which each event is certainly in a batch: they appear
	// every 15 minutes or so.
	settled = 45 * time.Minute
	// disorder is how far events of the stream may be out of order.
	disorder = 15 * time.Minute
	// streamKept is how long the stream is trusted to go on from a token: it goes back
	// 24 hours.
	streamKept = 20 * time.Hour
	// recheck is how long a type that is caught up is not asked again. Ten types then
	// cost 240 of the 300 calls an hour at most.
	recheck = 150 * time.Second
)

// position is how far one type of event was read. Instants are milliseconds since 1970;
// 0 means none.
type position struct {
	// Batch is whether Token leads into the list of batches, and not into the stream.
	Batch bool `json:"b,omitempty"`
	// Token is Mimecast's @nextPage; empty at the beginning.
	Token string `json:"t,omitempty"`
	// Skip is how many files of the page at Token were read.
	Skip int `json:"s,omitempty"`
	// From and Until bound the events to deliver, by their timestamps: From is the first
	// instant, Until the first one that is not among them.
	From  int64 `json:"f,omitempty"`
	Until int64 `json:"u,omitempty"`
	// At is the instant up to which the stream was read.
	At int64 `json:"a,omitempty"`
	// CaughtUp is whether there was nothing more at At.
	CaughtUp bool `json:"c,omitempty"`
}

// fromBatches is the position of a type that is read from the batches on from an instant,
// up to one that is settled.
func fromBatches(from int64, now time.Time) position {
	return position{Batch: true, From: from, Until: now.Add(-settled).UnixMilli()}
}

// isFarBehind reports whether an instant is so long ago that batches are worth it.
func isFarBehind(instant int64, now time.Time) bool {
	return instant < now.Add(-farBehind).UnixMilli()
}

// current returns the position to read from. Where the stream may have forgotten some
// events, it is that of the batches, which are kept for a week.
func (p position) current(now time.Time) position {
	switch {
	case p.Batch:
		return p
	case p.At > 0 && p.At < now.Add(-streamKept).UnixMilli():
		return fromBatches(max(p.From, p.At+1), now)
	case p.Token == "" && p.From < now.Add(-lookBack-time.Minute).UnixMilli():
		return fromBatches(p.From, now)
	}
	return p
}

// afterBatches is the position once all batches up to Until were read.
func (p position) afterBatches(now time.Time) position {
	if isFarBehind(p.Until, now) {
		return fromBatches(p.Until, now)
	}
	return position{From: p.Until, At: p.Until - 1}
}

// contains reports whether an event with that timestamp is to be delivered. One without a
// timestamp always is.
func (p position) contains(timestamp int64) bool {
	return timestamp == 0 || timestamp >= p.From && (p.Until == 0 || timestamp < p.Until)
}

// afterPage is the position once a page of the stream was read, with events from oldest
// to newest.
func (p position) afterPage(next string, caughtUp bool, oldest, newest int64, now time.Time) position {
	if p.Until > 0 && (caughtUp || oldest >= p.Until) {
		return fromBatches(p.Until, now)
	}
	q := p
	q.CaughtUp, q.At = caughtUp, max(p.At, newest)
	if caughtUp {
		q.At = now.UnixMilli()
	}
	switch {
	case next == "": // the next page is this one, with more at its end
		q.From = max(p.From, newest+1)
	case q.At > p.From+time.Hour.Milliseconds(): // all that another source had is behind
		q.Token, q.From = next, 0
	default:
		q.Token = next
	}
	if !caughtUp && newest > 0 && isFarBehind(newest, now) && p.Until == 0 {
		// The batches go on at an instant that no event has reached that was delivered.
		q.Until = newest + disorder.Milliseconds()
	}
	return q
}

// isCaughtUp reports whether the type need not be asked yet.
func (p position) isCaughtUp(now time.Time) bool {
	since := now.UnixMilli() - p.At
	return p.CaughtUp && since >= 0 && since < recheck.Milliseconds()
}

// cursor is what a client's token means: how far each type was read, in the order of the
// table, and whose turn it is. It is not signed: it names no account, and leads a client
// nowhere that the client could not ask for itself.
type cursor struct {
	Version   int        `json:"v"`
	Turn      int        `json:"n"`
	Positions []position `json:"p"`
}

const (
	cursorVersion = 1
	// maxToken bounds a page token from Mimecast, in bytes; real ones have some 10.
	maxToken = 2 << 10
	// maxCursor bounds the proxy's token: it has ten page tokens, and fits into a
	// response header and a request body.
	maxCursor = 32 << 10
)

var errCursor = errors.New("not a token of this proxy")

// newCursor is where a client begins.
func newCursor(now time.Time) cursor {
	c := cursor{Version: cursorVersion, Positions: make([]position, len(types))}
	for i := range c.Positions {
		c.Positions[i].From = now.Add(-lookBack).UnixMilli()
	}
	return c
}

// String returns the token.
func (c cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(encode(c))
}

// parseCursor reads a token.
func parseCursor(token string) (c cursor, err error) {
	if len(token) > maxCursor {
		return c, fmt.Errorf("%w: it is too long", errCursor)
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return c, errCursor
	}
	if c.Version != cursorVersion || len(c.Positions) != len(types) || c.Turn < 0 || c.Turn >= len(types) {
		return c, fmt.Errorf("%w: it is of another version", errCursor)
	}
	for _, p := range c.Positions {
		if !p.isSane() {
			return c, fmt.Errorf("%w: a position is out of range", errCursor)
		}
	}
	return c, nil
}

// lastInstant is beyond each event: the year 2200.
const lastInstant = 7258118400000

func (p position) isSane() bool {
	for _, instant := range []int64{p.From, p.Until, p.At} {
		if instant < 0 || instant > lastInstant {
			return false
		}
	}
	return isToken(p.Token) && p.Skip >= 0 && p.Skip <= pageSize && (!p.Batch || p.Until > 0)
}

// isToken reports whether a page token can be kept in a cursor: in whatever
// encoding, it is plain text.
func isToken(token string) bool {
	return len(token) <= maxToken && !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}
