package api1_test

import (
	"testing"
	"time"
)

var day = 24 * time.Hour

func TestEveryEventComesOnceInEachFormat(t *testing.T) {
	for name, c := range map[string]collector{
		"lines": {}, "lines, zipped": {compress: true}, "JSON": {json: true}, "JSON, zipped": {json: true, compress: true},
		"Python": {python: true, compress: true}, "files' tokens only": {filesOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c.t, c.base = t, r.instance()
			since := r.clock.Now().Add(-day)
			want := r.events(since)
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
