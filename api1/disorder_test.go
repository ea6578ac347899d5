package api1_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// arrival is an event and when it became available, up to ten minutes after it happened.
type arrival struct {
	happened, arrived time.Time
	name, line        string
}

// model is an API 2.0 whose events arrive out of order. The stream has them as they arrive;
// a batch has those that arrived within a quarter of an hour.
type model struct {
	f        *fake
	arrivals []arrival
}

func newModel(f *fake, dice *rand.Rand, from, to time.Time, mean time.Duration) *model {
	m := &model{f: f}
	for at := from; at.Before(to); at = at.Add(time.Duration(dice.Int64N(2 * int64(mean)))) {
		late := time.Duration(dice.Int64N(int64(10 * time.Minute)))
		if dice.IntN(2) == 0 {
			late = 0
		}
		name := fmt.Sprint("e", len(m.arrivals))
		line := f.event(map[string]any{"timestamp": at.UnixMilli(), "aggregateId": name})
		m.arrivals = append(m.arrivals, arrival{at.Truncate(time.Millisecond), at.Add(late), name, line})
	}
	slices.SortStableFunc(m.arrivals, func(a, b arrival) int { return a.arrived.Compare(b.arrived) })
	f.page = m.serve
	return m
}

func (m *model) lines(keep func(arrival) bool) (lines []string) {
	for _, a := range m.arrivals {
		if keep(a) {
			lines = append(lines, a.line)
		}
	}
	return lines
}

func (m *model) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("type")+q.Get("types") != "receipt" {
		_, _ = io.WriteString(w, `{"value":[],"@nextPage":"0","isCaughtUp":true}`)
		return
	}
	now := m.f.clock.Now()
	if r.URL.Path == "/siem/v1/events/cg" {
		m.serveStream(w, q, now)
		return
	}
	quarter := m.start(q, time.DateOnly).Truncate(15 * time.Minute)
	var files []string
	for n := 0; n < 100 && !quarter.Add(15*time.Minute).After(now); n++ {
		name := "/" + quarter.Format(time.RFC3339)
		files = append(files, fmt.Sprintf(`{"url":"%s%s","size":1000}`, m.f.store, name))
		end := quarter.Add(15 * time.Minute)
		lines := m.lines(func(a arrival) bool { return !a.arrived.Before(quarter) && a.arrived.Before(end) })
		m.f.files[name] = content(gzipped(lines...))
		quarter = end
	}
	_, _ = fmt.Fprintf(w, `{"value":[%s],"@nextPage":"%d","isCaughtUp":%t}`, strings.Join(files, ","), quarter.UnixMilli(), quarter.Add(15*time.Minute).After(now))
}

// start returns the arrival time to continue from.
func (m *model) start(q url.Values, layout string) time.Time {
	if ms, err := strconv.ParseInt(q.Get("nextPage"), 10, 64); err == nil {
		return time.UnixMilli(ms).UTC()
	}
	at, err := time.Parse(layout, q.Get("dateRangeStartsAt"))
	if err != nil {
		m.f.t.Error(err)
	}
	return at
}

func (m *model) serveStream(w http.ResponseWriter, q url.Values, now time.Time) {
	next, err := strconv.Atoi(q.Get("nextPage"))
	if err != nil {
		at := m.start(q, time.RFC3339)
		next, _ = slices.BinarySearchFunc(m.arrivals, at, func(a arrival, t time.Time) int { return a.arrived.Compare(t) })
	}
	end := next
	for end < len(m.arrivals) && end < next+100 && !m.arrivals[end].arrived.After(now) {
		end++
	}
	values := []json.RawMessage{}
	for _, a := range m.arrivals[next:end] {
		values = append(values, json.RawMessage(a.line))
	}
	b, err := json.Marshal(values)
	if err != nil {
		m.f.t.Error(err)
	}
	_, _ = fmt.Fprintf(w, `{"value":%s,"@nextPage":"%d","isCaughtUp":%t}`, b, end, end == len(m.arrivals) || m.arrivals[end].arrived.After(now))
}

// When a collector switches between stream and batches, both or neither may have a late
// event. The event must still come exactly once.
func TestEventsOutOfOrderComeOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	for seed := range uint64(2) {
		f := newFake(t)
		dice := rand.New(rand.NewPCG(seed, 1))
		begin := f.clock.Now()
		end := begin.Add(2 * day)
		m := newModel(f, dice, begin.Add(-26*time.Hour), end, 20*time.Second)
		c := f.collector()
		var got []string
		for f.clock.Now().Before(end.Add(-12 * time.Hour)) {
			got = append(got, c.poll()...)
			f.clock.Advance(time.Duration(dice.Int64N(int64(12 * time.Hour))))
		}
		got = append(got, c.poll()...)
		now := f.clock.Now()
		var want []string
		for _, a := range m.arrivals {
			if !a.happened.Before(begin.Add(-day)) && !a.arrived.After(now) {
				want = append(want, fmt.Sprintf("receipt %s %s", a.happened.Format("2006-01-02T15:04:05-0700"), a.name))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		same(t, got, want)
	}
}
