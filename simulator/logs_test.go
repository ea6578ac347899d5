package simulator_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

// windowed is a source of events that can be queried by a time window.
type windowed struct {
	name string
	ask  func(r *rig, from, to time.Time) []any
	// at returns the time of an entry.
	at func(entry any) time.Time
	// least is the minimum number of entries per hour.
	least int
}

func windowedLog(target, member string, least int, path ...any) windowed {
	return windowed{name: target, least: least, ask: func(r *rig, from, to time.Time) (entries []any) {
		const layout = "2006-01-02T15:04:05-0700"
		arg := map[string]any{"from": from.Format(layout), "to": to.Format(layout), "oldestFirst": true}
		for _, answer := range r.pages(target, 7, arg) {
			entries = append(entries, list(answer, path...)...)
		}
		return entries
	}, at: func(entry any) time.Time {
		at, _ := time.Parse("2006-01-02T15:04:05-0700", dig(entry, member).(string)) // if it fails, the zero time is outside every window
		return at
	}}
}

func siemWindow(from, to time.Time) string {
	return url.Values{"dateRangeStartsAt": {from.Format(time.RFC3339)}, "dateRangeEndsAt": {to.Format(time.RFC3339)}}.Encode()
}

func siemAt(entry any) time.Time { return time.UnixMilli(int64(dig(entry, "timestamp").(float64))) }

// windowedSources are all sources that a collector polls.
func windowedSources() []windowed {
	sources := []windowed{
		windowedLog("/api/audit/get-audit-events", "eventTime", 19, "data"),
		windowedLog("/api/ttp/url/get-logs", "date", 11, "data", 0, "clickLogs"),
		windowedLog("/api/ttp/attachment/get-logs", "date", 14, "data", 0, "attachmentLogs"),
		windowedLog("/api/ttp/impersonation/get-logs", "eventTime", 2, "data", 0, "impersonationLogs"),
		windowedLog("/api/dlp/get-logs", "eventTime", 3, "data", 0, "dlpLogs"),
		windowedLog("/api/message-finder/search", "received", 89, "data", 0, "trackedEmails"),
	}
	for _, product := range []string{"cg", "ci"} {
		sources = append(sources, windowed{name: "stream of " + product, least: 359, at: siemAt, ask: func(r *rig, from, to time.Time) []any {
			events, _ := r.follow("/siem/v1/events/"+product, siemWindow(from, to), "")
			return events
		}}, windowed{name: "batches of " + product, least: 359, at: siemAt, ask: func(r *rig, from, to time.Time) (events []any) {
			files, _ := r.follow("/siem/v1/batch/events/"+product, siemWindow(from, to), "")
			for _, f := range files {
				for _, e := range r.download(f) {
					events = append(events, e)
				}
			}
			return events
		}})
	}
	return sources
}

func TestSmallWindowsPartitionALargeOne(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const window = 30 * time.Second
	r := start(t, simulator.Options{Now: newClock().Now, Quotas: map[string]simulator.Quota{}}).login()
	for _, source := range windowedSources() {
		for _, from := range []time.Time{noon.Add(-90*time.Minute - 7*time.Second), noon.Add(-time.Hour - 4*time.Second)} {
			to := from.Add(time.Hour)
			whole, parts := source.ask(r, from, to), []any{}
			for at := from; at.Before(to); at = at.Add(window) {
				part := source.ask(r, at, at.Add(window))
				for _, e := range part {
					if when := source.at(e); when.Before(at) || !when.Before(at.Add(window)) {
						t.Errorf("%s: an entry of %v in the window from %v", source.name, when, at)
					}
				}
				parts = append(parts, part...)
			}
			if len(whole) < source.least || string(encode(t, parts)) != string(encode(t, whole)) {
				t.Errorf("%s: %d entries from %v on, %d of them in small windows", source.name, len(whole), from, len(parts))
			}
		}
	}
}

// A collector that polls every 30 s for the last 30 s gets every entry once.
func TestPollerThatFollowsTheClockMissesNothing(t *testing.T) {
	t.Parallel()
	const window = 30 * time.Second
	for _, source := range windowedSources() {
		c := newClock()
		r := start(t, simulator.Options{Now: c.Now, Quotas: map[string]simulator.Quota{}}).login()
		began := c.Now()
		var polled []any
		for range 40 {
			c.Advance(window)
			polled = append(polled, source.ask(r, c.Now().Add(-window), c.Now())...)
		}
		if whole := source.ask(r, began, c.Now()); len(whole) == 0 || string(encode(t, polled)) != string(encode(t, whole)) {
			t.Errorf("%s: %d entries were polled of %d", source.name, len(polled), len(whole))
		}
	}
}

// A token continues where the window ended, even in the middle of a batch.
func TestBatchTokenGoesOnWhereTheWindowEnded(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	const path = "/siem/v1/batch/events/cg"
	middle := noon.Add(-20 * time.Minute)
	files, token := r.follow(path, siemWindow(noon.Add(-40*time.Minute), middle), "")
	rest, _ := r.follow(path, "", token)
	files = append(files, rest...)
	var got []any
	for _, f := range files {
		for _, e := range r.download(f) {
			got = append(got, e)
		}
	}
	want, _ := r.follow("/siem/v1/events/cg", siemWindow(noon.Add(-40*time.Minute), noon.Truncate(15*time.Minute)), "")
	if len(want) < 200 || string(encode(t, got)) != string(encode(t, want)) {
		t.Errorf("%d events in files, not %d", len(got), len(want))
	}
}

func TestWindowsOutsideOfWhatIsKeptAreEmpty(t *testing.T) {
	r := start(t, simulator.Options{Now: newClock().Now}).login()
	for _, source := range windowedSources() {
		for _, from := range []time.Time{noon.Add(time.Hour), noon.AddDate(7000, 0, 0)} {
			if got := source.ask(r, from, from.Add(time.Hour)); len(got) != 0 {
				t.Errorf("%s: %d entries from %v on", source.name, len(got), from)
			}
		}
	}
	for _, product := range []string{"cg", "ci"} {
		if got, _ := r.follow("/siem/v1/batch/events/"+product, fmt.Sprintf("dateRangeStartsAt=%d-01-01", 9998), ""); len(got) != 0 {
			t.Errorf("%s: %d batches of the year 9998", product, len(got))
		}
	}
}
