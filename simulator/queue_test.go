package simulator_test

import (
	"testing"

	"mimecast-proxy/simulator"
)

func TestEmailQueuesAreReadByTime(t *testing.T) {
	r := start(t, simulator.Options{Now: newClock().Now}).login()
	answer := r.call("/api/email/get-email-queues", map[string]any{"start": "2026-03-05T10:00:00Z", "end": "2026-03-05T11:00:00Z"})
	for _, queue := range []string{"inboundEmailQueue", "outboundEmailQueue"} {
		sizes := list(answer, "data", 0, queue)
		if len(sizes) != 4 || dig(sizes, 0, "date") != "2026-03-05T10:00:00+0000" || dig(sizes, 0, "count") == nil {
			t.Errorf("%s: %v", queue, sizes)
		}
	}
	if got := r.call("/api/email/get-email-queues", map[string]any{"start": "now"}); code(got) != "err_validation_invalid_date" {
		t.Errorf("%v", got)
	}
	if got := list(r.call("/api/email/get-email-queues", "{}"), "data", 0, "inboundEmailQueue"); len(got) != 96 {
		t.Errorf("%d sizes in a day, not 96", len(got))
	}
}
