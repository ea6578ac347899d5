package admin_test

import (
	"encoding/json"
	"strings"
	"testing"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

func TestSupportShowsWhatWentWrong(t *testing.T) {
	o := full()
	o.Status = func() admin.Status {
		return admin.Status{Snapshot: event.Snapshot{
			Errors: []event.Request{{Path: "/bad", Fault: event.MimecastError}, {Path: "/cut", Error: "cut"}},
		}}
	}
	_, body := ask(t, serve(t, o), "GET", "/api/support")
	var got admin.Support
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Errors) != 2 || got.Errors[0].Path != "/bad" || got.Status.Health.State == "" || len(got.Settings) != 1 || strings.Contains(body, "abcdefghijkl") {
		t.Errorf("%v: %s", err, body)
	}
}
