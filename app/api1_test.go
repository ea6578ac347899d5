package app

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
)

func TestCallOfAPI1IsWarnedOfOnceForItsRow(t *testing.T) {
	now := time.Now()
	for _, translate := range []bool{false, true} {
		var w api1Warnings
		var added []string
		for range 2 {
			for _, o := range []event.Outcome{
				{Method: "POST", Path: "/api/message-finder/search", Status: 404, Answered: now},
				{Method: "POST", Path: "/api/login/logout", Status: 200, Answered: now},
				{Method: "POST", Path: "/api/login/discover-authentication", Status: 404}, // not Mimecast's
				{Method: "POST", Path: "/api/user/get-profile", Status: 404, Answered: now},
				{Method: "POST", Path: "/api/delegate/a", Status: 404, Answered: now},
				{Method: "POST", Path: "/api/delegate/b", Status: 404, Answered: now},
				{Method: "POST", Path: "/api/login/login", Status: 404, Answered: now},
				{Method: "GET", Path: "/api/audit/get-siem-logs", Status: 404, Answered: now},
			} {
				if call, ok := w.add(o, translate); ok {
					added = append(added, call.Path)
				}
			}
		}
		want := []string{"/api/user/get-profile", "/api/delegate/", "/api/login/login", "/api/audit/get-siem-logs"}
		if translate { // the 404 is that of a call for the translation
			want = slices.Delete(want, 2, 3)
		}
		if !slices.Equal(added, want) {
			t.Errorf("translate %t: %q, not %q", translate, added, want)
		}
		texts := w.all()
		if len(texts) != len(want) || !strings.HasSuffix(texts[0], "POST /api/user/get-attributes.") || !strings.HasSuffix(texts[1], "POST /api/user/add-delegate-user.") {
			t.Errorf("%q", texts)
		}
	}
}
