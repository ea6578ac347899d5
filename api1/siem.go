package api1

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
)

const (
	// pageSize is the most items that Mimecast puts into a page.
	pageSize = 100
	// maxCalls bounds the pages that one request asks for. Ten types that changed to the
	// batches, and read a page of each source, ask for 30.
	maxCalls = 32
	// maxBatchBytes is how much of batches one response has, in compressed bytes, unless a
	// single file is larger: clients keep a response in memory, and it is some ten times
	// as long.
	maxBatchBytes = 8 << 20
	// unknownSize counts for a file whose size Mimecast does not state.
	unknownSize = 1 << 20
	// maxPageWait is how long a page that Mimecast sends may wait for other clients to read
	// theirs. It has used up a call of the account's quota.
	maxPageWait = 5 * time.Second
	// busyRetryAfter is the Retry-After for a call beyond MaxTranslations.
	busyRetryAfter = time.Second
)

// translation is one call of get-siem-logs.
type translation struct {
	*layer
	w       http.ResponseWriter
	r       *http.Request
	request request
	cursor  cursor
	now     time.Time
	calls   int // pages that were asked for
	skipped int // lines that were no events
	entered bool
}

// serveSIEMLogs serves a call of get-siem-logs: with the events of the first type that
// has some, or that there are none.
func (l *layer) serveSIEMLogs(w http.ResponseWriter, r *http.Request) {
	req, p := readRequest(w, r)
	if p == nil && req.Type != "" && !strings.EqualFold(req.Type, "MTA") {
		p = problem.New(event.BadRequestBody, "get-siem-logs has logs of type MTA only.")
	}
	if p != nil {
		l.fail(w, r, p)
		return
	}
	t := &translation{layer: l, w: w, r: r, request: req, now: l.Now()}
	defer t.leave()
	t.cursor = t.startingPoint()
	t.serve()
}

// enter waits until a page may be kept, and reports whether it may. Nothing is kept while
// Mimecast's response has not begun.
func (t *translation) enter() bool {
	ctx, cancel := context.WithTimeout(t.r.Context(), maxPageWait)
	defer cancel()
	t.entered = t.translations.Take(ctx, account.Of(ctx)) == nil
	return t.entered
}

// leave releases the place of the page.
func (t *translation) leave() {
	if t.entered {
		t.entered = false
		t.translations.Release(account.Of(t.r.Context()))
	}
}

// tooBusy is the error response for a call beyond MaxTranslations.
func (l *layer) tooBusy() *problem.Problem {
	p := problem.New(event.TooBusy, "The proxy has %d calls of get-siem-logs in flight and accepts no more. Retry later.", l.MaxTranslations)
	p.RetryAfter = busyRetryAfter
	return p
}

// startingPoint is where the client's token leads. One that this package did not issue,
// such as a client's last one from API 1.0, counts as none: a client that gets an error
// would send it for ever.
func (t *translation) startingPoint() cursor {
	if t.request.Token == "" {
		return newCursor(t.now)
	}
	c, err := parseCursor(t.request.Token)
	if err != nil {
		if t.Trace.StartedOver != nil {
			t.Trace.StartedOver(t.r.Context())
		}
		return newCursor(t.now)
	}
	return c
}

func (t *translation) serve() {
	for range types {
		i := t.cursor.Turn
		t.cursor.Turn = (i + 1) % len(types)
		if !t.isCaughtUp(i) && t.read(i) {
			return
		}
	}
	t.respondEmpty()
}

// isCaughtUp reports whether a type need not be asked yet: its position says so, or a
// later one that the client did not keep.
func (t *translation) isCaughtUp(i int) bool {
	p := t.cursor.Positions[i]
	return p.isCaughtUp(t.now) || t.caught.has(t.caughtKey(i, p), t.now)
}

func (t *translation) caughtKey(i int, p position) caughtKey {
	return caughtKey{account.Of(t.r.Context()), i, p}
}

// read reads pages of a type until one has events, or there are none. It reports whether
// the client has its response.
func (t *translation) read(i int) (responded bool) {
	start := t.cursor.Positions[i]
	for t.calls < maxCalls {
		p := t.position(i)
		if p.Batch {
			responded = t.readBatches(i, p)
		} else {
			responded = t.readStream(i, p)
		}
		t.leave()
		if responded {
			return true
		}
		if t.isCaughtUp(i) {
			t.caught.add(t.caughtKey(i, start), t.now)
			return false
		}
	}
	return false
}

// advance sets the position of a type after a page. If it is the same as before, the next
// call would bring the same page and use up the quota. Such a type counts as caught up for
// a while.
func (t *translation) advance(i int, before, after position) {
	t.cursor.Positions[i] = after
	before.CaughtUp = false // a stale one is no progress
	if after == before {
		t.caught.add(t.caughtKey(i, after), t.now)
	}
}

// hasBatches reports whether batches can be read. HTTP/1.0 has no sign of a response that
// was broken off, as that of a download that fails.
func (t *translation) hasBatches() bool { return t.Download != nil && t.r.ProtoAtLeast(1, 1) }

// position returns where to read a type from.
func (t *translation) position(i int) position {
	p := t.cursor.Positions[i]
	switch {
	case t.hasBatches():
		return p.current(t.now)
	case p.Batch: // of a proxy that has batches; what was read of them comes again
		return position{From: p.From}
	}
	p.Until = 0
	return p
}

// page is a page of the stream or of the list of batches.
type page struct {
	Value    []json.RawMessage `json:"value"`
	Next     string            `json:"@nextPage"`
	CaughtUp bool              `json:"isCaughtUp"`
	Fail     []json.RawMessage `json:"fail"`
}

// page asks for a page. If there is none, the client has the response instead.
func (t *translation) page(path string, query url.Values) (p page, ok bool) {
	t.calls++
	query.Set("pageSize", strconv.Itoa(pageSize))
	c := t.ask(path, query)
	if c.forwarded {
		return p, false
	}
	if c.busy {
		t.fail(t.w, t.r, t.tooBusy())
		return p, false
	}
	body, err := c.content()
	if err != nil {
		t.fail(t.w, t.r, problem.New(event.UpstreamReset, "Mimecast's page of events cannot be used.").Because(err))
		return p, false
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Value == nil || len(p.Fail) > 0 {
		c.forward() // 200 with a failure in it
		return p, false
	}
	if !isToken(p.Next) { // a cursor with it would be rejected
		t.fail(t.w, t.r, problem.New(event.UpstreamReset, "Mimecast's page of events has a token that cannot be used."))
		return p, false
	}
	return p, true
}

func (t *translation) readStream(i int, p position) (responded bool) {
	query := url.Values{"types": {types[i].name}}
	if p.Token == "" {
		query.Set("dateRangeStartsAt", time.UnixMilli(p.From).UTC().Format("2006-01-02T15:04:05.000Z"))
	} else {
		query.Set("nextPage", p.Token)
	}
	page, ok := t.page(mimecast.SIEMStreamPath, query)
	if !ok {
		return true
	}
	if p.Token == "" && !page.CaughtUp && isFarBehind(p.From, t.now) && t.hasBatches() { // nothing was delivered yet
		t.advance(i, p, fromBatches(p.From, t.now))
		return false
	}
	events, oldest, newest := t.events(page)
	t.advance(i, p, p.afterPage(page.Next, page.CaughtUp, oldest, newest, t.now))
	return t.respond(i, func(f *file) error {
		for _, e := range events {
			if !p.contains(e.timestamp()) {
				continue
			}
			if err := f.add(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// events returns the events of a page, and the timestamps of the oldest and the newest
// one; 0 if there is none.
func (t *translation) events(p page) (events []event20, oldest, newest int64) {
	for _, line := range p.Value {
		e, err := parseEvent(line)
		if err != nil {
			t.skipped++
			continue
		}
		events = append(events, e)
		at := e.timestamp()
		if at > 0 && (oldest == 0 || at < oldest) {
			oldest = at
		}
		newest = max(newest, at)
	}
	return events, oldest, newest
}

// batchFile is an entry of the list of batches.
type batchFile struct {
	URL  string `json:"url"`
	Size int64  `json:"size"`
}

func (t *translation) readBatches(i int, p position) (responded bool) {
	query := url.Values{
		"type":              {types[i].name},
		"dateRangeStartsAt": {time.UnixMilli(p.From).UTC().Format(time.DateOnly)},
		"dateRangeEndsAt":   {time.UnixMilli(p.Until).UTC().Format(time.DateOnly)},
	}
	if p.Token != "" {
		query.Set("nextPage", p.Token)
	}
	page, ok := t.page(mimecast.SIEMBatchPath, query)
	if !ok {
		return true
	}
	files := make([]batchFile, len(page.Value))
	for j, v := range page.Value {
		if json.Unmarshal(v, &files[j]) != nil {
			t.fail(t.w, t.r, problem.New(event.UpstreamReset, "Mimecast's list of batch files cannot be used."))
			return true
		}
	}
	files = files[min(p.Skip, len(files)):]
	n := fitting(files)
	after := p
	switch {
	case n < len(files):
		after.Skip = p.Skip + n
	case page.CaughtUp || page.Next == "":
		after = p.afterBatches(t.now)
	default:
		after.Skip, after.Token = 0, page.Next
	}
	t.advance(i, p, after)
	return t.respond(i, func(f *file) error { return t.copyBatches(f, files[:n], p) })
}

// fitting returns how many of the files go into one response; at least one, if there is
// one.
func fitting(files []batchFile) int {
	total := int64(0)
	for n, f := range files {
		size := f.Size
		if size <= 0 {
			size = unknownSize
		}
		if total += size; total > maxBatchBytes && n > 0 {
			return n
		}
	}
	return len(files)
}

// respond sends what write adds to a file of a type. The response begins with the first
// event; without one there is no response. What fails before is an error response; what
// fails after it breaks the response off, so that it does not look complete. The
// client's token stays good.
func (t *translation) respond(i int, write func(*file) error) (responded bool) {
	f := &file{translation: t, kind: &types[i]}
	err := write(f)
	if err == nil {
		err = f.close()
	}
	switch {
	case err == nil && f.events == 0:
		return false
	case err == nil:
		t.translated(t.r, f.events, t.skipped)
		return true
	case f.events > 0:
		panic(http.ErrAbortHandler)
	}
	t.fail(t.w, t.r, batchProblem(err))
	return true
}

// respondEmpty responds that there is nothing for now. Clients that see the type
// of the response stop asking until their next run.
func (t *translation) respondEmpty() {
	last := true
	for i := range types {
		last = last && t.isCaughtUp(i)
	}
	t.setToken()
	body := envelope()
	body["meta"] = object{"isLastToken": last, "status": http.StatusOK}
	writeJSON(t.w, body)
	t.translated(t.r, 0, t.skipped)
}

// setToken sets the client's next token. The name is spelled as API 1.0 did, since some
// clients compare it as text.
func (t *translation) setToken() { t.w.Header()["mc-siem-token"] = []string{t.cursor.String()} }
