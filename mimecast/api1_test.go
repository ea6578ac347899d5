package mimecast_test

import (
	"slices"
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

// A call that a preset lets through exists in API 2.0.
func TestNoPresetNamesACallOfAPI1(t *testing.T) {
	for name, routes := range mimecast.Presets {
		for _, call := range mimecast.API1Calls {
			if slices.Contains(routes, "POST "+call.Path) {
				t.Errorf("%s has %s, which exists in API 1.0 only", name, call.Path)
			}
		}
	}
}
