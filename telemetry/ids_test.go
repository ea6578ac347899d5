package telemetry_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/telemetry"
)

func TestRequestIDIsTheClientsOrANewOne(t *testing.T) {
	r := newRig(t, telemetry.Options{}, just(func(_ http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("X-Request-Id"); got != "" && got != req.Header.Get("X-Sent") {
			t.Errorf("the request was changed: %q", got)
		}
	}))
	long := strings.Repeat("x", 129)
	for _, id := range []string{"", "ok-1", "a b", "é", long, long[:128]} {
		if _, err := r.get("/", "X-Request-Id", id, "X-Sent", id); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for _, line := range r.lines("request") {
		ids = append(ids, line["request_id"].(string))
	}
	for i, made := range []bool{true, false, true, true, true, false} {
		if made != (len(ids[i]) == 16) {
			t.Errorf("%d: %q", i, ids[i])
		}
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 6 {
		t.Errorf("not unique: %v", ids)
	}
}

func TestTraceIDIsThatOfAValidTraceparent(t *testing.T) {
	const id, rest = "0af7651916cd43dd8448eb211c80319c", "-b7ad6b7169203331-01"
	zero := strings.Repeat("0", 32)
	r := newRig(t, telemetry.Options{}, just(func(http.ResponseWriter, *http.Request) {}))
	headers := map[string]string{
		"00-" + id + rest:                    id,
		"cc-" + id + rest + "-future":        id,
		"00-" + id + rest + "-more":          "",
		"cc-" + id + rest + "future":         "",
		"ff-" + id + rest:                    "",
		"00-" + strings.ToUpper(id) + rest:   "",
		"00-" + zero + rest:                  "",
		"00-" + id + "-0000000000000000-01":  "",
		"00_" + id + rest:                    "",
		"00-" + id[1:] + rest:                "",
		"0g-" + id + rest:                    "",
		"00-" + id + "-b7ad6b7169203331-0\"": "",
	}
	var want []string
	for header, trace := range headers {
		if _, err := r.get("/", "Traceparent", header); err != nil {
			t.Fatal(err)
		}
		want = append(want, trace)
	}
	if _, err := r.get("/", "Traceparent", "00-"+id+rest, "Traceparent", "00-"+id+rest); err != nil {
		t.Fatal(err)
	}
	for i, line := range r.lines("request") {
		if got, _ := line["trace_id"].(string); i < len(want) && got != want[i] || i == len(want) && got != "" {
			t.Errorf("%d: %q", i, got)
		}
	}
}
