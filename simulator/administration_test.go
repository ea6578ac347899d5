package simulator_test

import (
	"strings"
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

// Tokens depend on the seed alone, and the log of releases begins anew.
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

func TestAccountHasSupportPackagesAndDomains(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	if got := r.call("/api/account/get-support-info", map[string]any{}); dig(got, "data", 0, "supportPackage") == nil {
		t.Errorf("support: %v", got)
	}
	sold := list(r.call("/api/provisioning/get-packages", map[string]any{}), "data")
	named := list(r.call("/api/account/get-account", map[string]any{}), "data", 0, "packages")
	if len(sold) == 0 || len(sold) != len(named) || dig(sold, 0, "products", "name") != named[0] || dig(sold, 0, "products", "id") == "" {
		t.Errorf("packages %v, and of the account %v", sold, named)
	}
	const rest = "/domain/cloud-gateway/v1/internal-domains"
	old := list(r.call("/api/domain/get-internal-domain", map[string]any{}), "data")
	_, answer := r.get(rest)
	if string(encode(t, list(answer, "domains"))) != string(encode(t, old)) || len(old) == 0 {
		t.Errorf("domains %v and %v", old, answer)
	}
	if res, one := r.get(rest + "/" + dig(old, 0, "id").(string)); res.StatusCode != 200 || one["domain"] != dig(old, 0, "domain") {
		t.Errorf("one domain: %d %v", res.StatusCode, one)
	}
	if res, none := r.get(rest + "/none"); res.StatusCode != 404 || dig(none, "errors", 0, "code") != "not_found" {
		t.Errorf("no domain: %d %v", res.StatusCode, none)
	}
	if res, bad := r.get(rest + "?pageToken=x"); res.StatusCode != 400 {
		t.Errorf("a bad page: %d %v", res.StatusCode, bad)
	}
}

func TestEmergencyContactCanBeChanged(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	ask := func(method, body string) (int, map[string]any) {
		res, answer := r.do(r.request(method, "/account/cloud-gateway/v1/emergency-contact", strings.NewReader(body)))
		return res.StatusCode, decode(t, answer)
	}
	_, first := ask("GET", "")
	if first["contactEmailAddress"] == nil || first["accountCode"] == nil {
		t.Fatalf("%v", first)
	}
	if status, got := ask("PATCH", `{"telephone":"1","accountCode":"x"}`); status != 200 || got["telephone"] != "1" || got["accountCode"] != first["accountCode"] ||
		got["contactEmailAddress"] != first["contactEmailAddress"] {
		t.Errorf("patch: %d %v", status, got)
	}
	if status, got := ask("PUT", `{"contactEmailAddress":"a@b.example"}`); status != 200 || got["telephone"] != nil {
		t.Errorf("put: %d %v", status, got)
	}
	for method, body := range map[string]string{"PUT": `{}`, "PATCH": `{"contactEmailAddress":"nobody"}`} {
		if status, got := ask(method, body); status != 400 || dig(got, "errors", 0, "code") != "invalid_value" {
			t.Errorf("%s %s: %d %v", method, body, status, got)
		}
	}
	if _, got := ask("GET", ""); got["contactEmailAddress"] != "a@b.example" {
		t.Errorf("at the end: %v", got)
	}
	if n, m := r.Executions("update-emergency-contact"), r.Executions("replace-emergency-contact"); len(n) != 1 || len(m) != 1 {
		t.Errorf("executions %v, %v", n, m)
	}
}
