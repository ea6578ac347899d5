package simulator_test

import (
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

func TestHoldSummaryAndReleaseLogsFollowTheQueue(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now, HeldMessages: 3, TokenTTL: 24 * time.Hour}).login()
	waiting := func() any {
		return dig(r.call("/api/gateway/get-hold-summary-list", map[string]any{}), "data", 0, "numberOfItems")
	}
	logs := func(arg map[string]any) []any {
		return list(r.call("/api/gateway/get-held-release-logs", arg), "data", 0, "heldReleaseLogs")
	}
	if n, done := waiting(), logs(map[string]any{}); n != 3.0 || len(done) != 0 {
		t.Errorf("at first %v wait and %v were released", n, done)
	}
	r.call("/api/gateway/hold-release", map[string]any{"id": r.HeldID(1)})
	c.Advance(time.Hour)
	r.call("/api/gateway/hold-reject", map[string]any{"id": r.HeldID(0)})
	if n := waiting(); n != 1.0 {
		t.Errorf("%v wait, not 1", n)
	}
	all := logs(map[string]any{})
	if len(all) != 2 || dig(all, 0, "status") != "rejected" || dig(all, 1, "status") != "released" || dig(all, 1, "id") != r.HeldID(1) {
		t.Errorf("%v", all)
	}
	for name, arg := range map[string]map[string]any{
		"rejected": {"start": "2026-03-05T12:30:00+0000"}, "released": {"start": "2026-03-05T12:00:07+0000", "end": "2026-03-05T13:00:07+0000"},
	} {
		if got := logs(arg); len(got) != 1 || dig(got, 0, "status") != name {
			t.Errorf("%v: %v", arg, got)
		}
	}
	r.call("/api/gateway/hold-release", map[string]any{"id": r.HeldID(2)})
	if got := list(r.call("/api/gateway/get-hold-summary-list", map[string]any{}), "data"); len(got) != 0 {
		t.Errorf("an empty queue: %v", got)
	}
}

// Tokens depend only on the seed, but each run starts with an empty log of releases.
func TestReleaseLogsTakeATokenFromAnEarlierRun(t *testing.T) {
	const target = "/api/gateway/get-held-release-logs"
	o := simulator.Options{Now: newClock().Now}
	before := start(t, o).login()
	for i := range 3 {
		before.call("/api/gateway/hold-release", map[string]any{"id": before.HeldID(i)})
	}
	next := dig(before.call(target, `{"meta":{"pagination":{"pageSize":1}}}`), "meta", "pagination", "next").(string)
	if got := start(t, o).login().call(target, `{"meta":{"pagination":{"pageToken":"`+next+`"}}}`); code(got) != nil || len(list(got, "data", 0, "heldReleaseLogs")) != 0 {
		t.Errorf("%v", got)
	}
}
