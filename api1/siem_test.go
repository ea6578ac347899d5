package api1_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/suite"
)

const day = 24 * time.Hour

var formatsOfADay = flag.Int("formats-of-a-day", 1, "in how many of 4 formats TestEveryEventComesOnceInEachFormat reads a whole day")

func TestEveryEventComesOnceInEachFormat(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	r := newRig(t)
	base := r.instance()
	began := r.clock.Now()
	want := r.events(began.Add(-day))
	if len(want) != 8640 {
		t.Fatalf("the simulator has %d events in a day", len(want))
	}
	formats := []*collector{{json: true, compress: true}, {}, {compress: true}, {json: true}}
	for _, c := range formats[:*formatsOfADay] { // a day of events takes seconds
		t.Run(fmt.Sprintf("a day, JSON %t, zipped %t", c.json, c.compress), func(t *testing.T) {
			r.sim.SetQuota("/siem/v1/batch/events/", 50, 15*time.Minute) // resets the usage
			c.t, c.base = t, base
			same(t, c.poll(), want)
			t.Logf("%d responses, %d calls of the stream and %d of the batches", c.responses, r.stream.Load(), r.batch.Load())
		})
	}
	dayRead := formats[0].token
	r.clock.Advance(time.Hour)
	want = r.events(began)
	if len(want) != 360 {
		t.Fatalf("the simulator has %d events in an hour", len(want))
	}
	for _, c := range append(formats, &collector{python: true, compress: true}, &collector{filesOnly: true}) {
		c.token = cmp.Or(c.token, dayRead) // continues a day read in one format in other formats
		t.Run(fmt.Sprintf("an hour, JSON %t, zipped %t, Python %t, files' tokens only %t", c.json, c.compress, c.python, c.filesOnly), func(t *testing.T) {
			c.t, c.base = t, base
			same(t, c.poll(), want)
		})
	}
}

// Without downloads, the stream also has a day of events. With them, a collector that was
// off finds everything that it missed, from either source.
func TestEventsOfAnOutageComeOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("days of events take seconds")
	}
	r := newRig(t)
	c := collector{t: t, base: r.withoutBatches()}
	same(t, c.poll(), r.events(r.clock.Now().Add(-day)))
	if r.batch.Load() > 0 {
		t.Errorf("%d calls of the batches without a host for downloads", r.batch.Load())
	}
	for _, outage := range []time.Duration{3 * time.Minute, 25 * time.Hour, time.Hour} {
		r.clock.Advance(outage)
		old := c.token
		c.base = r.instance() // the proxy restarted too
		got := c.poll()
		t.Logf("%v: %d calls of the stream and %d of the batches", outage, r.stream.Load(), r.batch.Load())
		if outage < day {
			same(t, got, r.events(r.clock.Now().Add(-outage)))
			c.token = old // still valid, as for a client that lost the responses
			same(t, c.poll(), got)
		}
		if n := int(outage / (10 * time.Second)); len(got) != n || len(slices.Compact(got)) != n {
			t.Errorf("%v: %d events, not %d", outage, len(got), n)
		}
	}
}

// The simulator responds to the 301st call in an hour with 429, which fails the test.
func TestQuotaIsEnoughForAPollEachMinute(t *testing.T) {
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	r := newRig(t)
	first := collector{t: t, base: r.withoutBatches()}
	first.poll()
	token := first.token
	for _, instances := range []int{1, 2} {
		for _, filesOnly := range []bool{false, true} {
			t.Run(fmt.Sprint(instances, " instances, tokens of files only: ", filesOnly), func(t *testing.T) {
				if testing.Short() && (instances == 1 || filesOnly) {
					t.Skip("hours of polls take seconds")
				}
				bases := []string{r.instance(), r.instance()}[:instances]
				c := collector{t: t, filesOnly: filesOnly, token: token}
				r.sim.SetQuota("/siem/v1/events/", 300, time.Hour) // resets the usage
				began := r.clock.Now()
				var got []string
				for hour := range 2 {
					before := r.stream.Load()
					for minute := range 60 {
						r.clock.Advance(time.Minute)
						c.base = bases[(hour*60+minute)%len(bases)]
						got = append(got, c.poll()...)
					}
					t.Logf("%d calls in an hour", r.stream.Load()-before)
				}
				r.clock.Advance(3 * time.Minute)
				got = append(got, c.poll()...)
				slices.Sort(got)
				same(t, got, r.events(began))
				token = c.token
			})
		}
	}
}

// A client's last token from API 1.0 is not one of the proxy's.
func TestForeignTokenStartsOver(t *testing.T) {
	f := newFake(t)
	startedOver := 0
	f.trace.StartedOver = func(context.Context) { startedOver++ }
	f.stream["receipt"] = []string{f.event(nil)}
	for _, token := range []string{"eNoVjk0LgjAAQP_LzgZ", "a/b+c==", "bnVsbA", strings.Repeat("A", 60000)} {
		c := f.collector()
		c.token = token
		if got := c.poll(); len(got) != 1 {
			t.Errorf("%.20s: %q", token, got)
		}
	}
	if startedOver != 4 {
		t.Errorf("started over %d times", startedOver)
	}
}
