package mimecast_test

import (
	"testing"

	"mimecast-proxy/mimecast"
)

func TestAPI1OnlyKnowsTheCallsThatAPI2Lacks(t *testing.T) {
	for path, want := range map[string]string{
		"/api/audit/get-siem-logs":       "/api/audit/get-siem-logs",
		"/api/delegate/add-user":         "/api/delegate/",
		"/api/delegate":                  "",
		"/api/audit/get-siem-logs/":      "",
		"/api/audit/get-audit-events":    "",
		"/api/user/get-profile":          "/api/user/get-profile",
		"/api/login/discover-other":      "",
		"/api/awareness-training/queue/": "",
	} {
		if call, ok := mimecast.API1Only(path); call.Path != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", path, call.Path, ok)
		}
	}
}
