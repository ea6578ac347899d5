package api1_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestEveryEventComesOnceInEachFormat(t *testing.T) {
	for name, c := range map[string]collector{
		"lines": {}, "lines, zipped": {compress: true}, "JSON": {json: true}, "JSON, zipped": {json: true, compress: true},
		"Python": {python: true, compress: true}, "files' tokens only": {filesOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && (!c.json || !c.compress) {
				t.Skip("a day of events takes seconds")
			}
			r := newRig(t)
			c.t, c.base = t, r.instance()
			want := r.events(r.clock.Now().Add(-day))
			if len(want) != 8640 {
				t.Fatalf("the simulator has %d events in a day", len(want))
			}
			same(t, c.poll(), want)
			t.Logf("%d responses, %d calls of the stream and %d of the batches", c.responses, r.stream.Load(), r.batch.Load())

			r.clock.Advance(5 * time.Minute)
			more := c.poll()
			same(t, more, r.events(r.clock.Now().Add(-5*time.Minute)))
			if len(more) != 30 {
				t.Errorf("%d new events, not 30", len(more))
			}
		})
	}
}

// A collector that was off finds all that it missed, in whichever source has it.
func TestEventsOfAnOutageComeOnce(t *testing.T) {
	for _, outage := range []time.Duration{3 * time.Minute, 30 * time.Hour} {
		t.Run(outage.String(), func(t *testing.T) {
			if testing.Short() {
				t.Skip("days of events take seconds")
			}
			r := newRig(t)
			c := collector{t: t, base: r.instance()}
			c.poll()
			r.clock.Advance(outage)
			old := c.token
			c.base = r.instance() // it restarted, too
			got := c.poll()
			t.Logf("%d calls of the stream and %d of the batches", r.stream.Load(), r.batch.Load())
			if outage < day {
				same(t, got, r.events(r.clock.Now().Add(-outage)))
			}
			if n := int(outage / (10 * time.Second)); len(got) != n || len(slices.Compact(got)) != n {
				t.Errorf("%d events, not %d", len(got), n)
			}
			r.clock.Advance(time.Hour)
			same(t, c.poll(), r.events(r.clock.Now().Add(-time.Hour)))
			if outage == time.Hour { // an old token stays good, as for a client that lost the responses
				c.token = old
				same(t, c.poll(), r.events(r.clock.Now().Add(-2*time.Hour)))
			}
		})
	}
}

// The simulator answers the 301st call of an hour with 429, at which the collector fails.
func TestQuotaIsEnoughForAPollEachMinute(t *testing.T) {
	for _, instances := range []int{1, 2} {
		for _, filesOnly := range []bool{false, true} {
			t.Run(fmt.Sprint(instances, " instances, tokens of files only: ", filesOnly), func(t *testing.T) {
				if testing.Short() && (instances == 1 || filesOnly) {
					t.Skip("hours of polls take seconds")
				}
				r := newRig(t)
				bases := []string{r.instance(), r.instance()}[:instances]
				c := collector{t: t, base: r.withoutBatches(), filesOnly: filesOnly}
				c.poll()
				r.sim.SetQuota("/siem/v1/events/", 300, time.Hour)
				began := r.clock.Now()
				var got []string
				for hour := range 3 {
					before := r.stream.Load()
					for minute := range 60 {
						r.clock.Advance(time.Minute)
						c.base = bases[(hour*60+minute)%len(bases)]
						got = append(got, c.poll()...)
					}
					t.Logf("%d calls in an hour", r.stream.Load()-before)
				}
				r.clock.Advance(3 * time.Minute)
				slices.Sort(got)
				got = append(got, c.poll()...)
				slices.Sort(got)
				same(t, got, r.events(began))
			})
		}
	}
}

// Without a host for downloads the stream has to do.
func TestStreamAloneHasADay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes too long for -short")
	}
	r := newRig(t)
	c := collector{t: t, base: r.withoutBatches()}
	same(t, c.poll(), r.events(r.clock.Now().Add(-day)))
	if r.batch.Load() > 0 {
		t.Errorf("%d calls of the batches", r.batch.Load())
	}
}

// A client's last token from API 1.0 is none of the proxy's.
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
