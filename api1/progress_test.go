package api1_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/api1"
)

// A page that links to itself would be requested until the quota is used up.
func TestPageWithoutProgressIsAskedForOnce(t *testing.T) {
	for _, c := range []struct {
		name, page    string
		batches       bool
		calls, events int
	}{
		{"no next page", `{"value":[]}`, false, 10, 0},
		{"the same next page", `{"value":[],"@nextPage":"same","isCaughtUp":false}`, false, 20, 0},
		{"events without a timestamp", `{"value":[{"aggregateId":"a"}]}`, false, 10, 10},
		{"no next page of batches", `{"value":[]}`, true, 30, 0},
		{"the same next page of batches", `{"value":[],"@nextPage":"same","isCaughtUp":false}`, true, 30, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			calls := 0
			f.page = func(w http.ResponseWriter, _ *http.Request) {
				calls++
				_, _ = io.WriteString(w, c.page)
			}
			col := f.collector()
			if !c.batches {
				col.base = serve(t, api1.Wrap(api1.Options{Translate: true, Now: f.clock.Now})(http.HandlerFunc(f.serveAPI)))
			}
			events := 0
			for range 15 { // ten types may have a file each
				res, body, err := ask(&col)
				if err != nil {
					t.Fatal(err)
				}
				col.token = res.Header.Get("mc-siem-token")
				events += strings.Count(body, "aCode")
			}
			if calls > c.calls || events != c.events {
				t.Errorf("%d calls, not %d; %d events, not %d", calls, c.calls, events, c.events)
			}

			_, body, err := ask(&col)
			if err != nil || !strings.Contains(body, `"isLastToken":true`) {
				t.Errorf("%v %s", err, body)
			}
			calls = 0
			f.clock.Advance(150 * time.Second)
			if _, _, err := ask(&col); err != nil || calls == 0 || calls > 10 {
				t.Errorf("%v; %d calls after a while", err, calls)
			}
		})
	}
}
