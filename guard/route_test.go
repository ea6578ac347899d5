package guard_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
)

func TestTraceIsRejectedWhateverIsAllowed(t *testing.T) {
	newGate(t, guard.Policy{}).rejects(event.RouteNotAllowed, "TRACE", "/x")
}

func TestOnlyAllowedRoutesPass(t *testing.T) {
	g := newGate(t, guard.Policy{Routes: []string{"GET /siem/", "POST /api/ttp/url/get-logs", "/both", "GET /v1/{id}/events", "GET /exact/{$}", "GET  /rest/{path...}"}})
	for line, pattern := range map[string]string{
		"GET /siem/v1/x": "GET /siem/", "HEAD /siem/v1/x": "GET /siem/", "GET /siem/": "GET /siem/", "GET /siem/v1/?x=../..": "GET /siem/",
		"POST /api/ttp/url/get-logs": "POST /api/ttp/url/get-logs", "POST /api/ttp/url/get-logs?x": "POST /api/ttp/url/get-logs",
		"PUT /both": "/both", "get /both": "/both", "GET /v1/7/events": "GET /v1/{id}/events", "GET /exact/": "GET /exact/{$}", "GET /rest/a/b": "GET /rest/{path...}",
		"GET http://localhost/siem/x": "GET /siem/",
		// unusual, but the same route in every reading
		"GET /siem/a%2Fb": "GET /siem/", "GET /siem/a%20b": "GET /siem/", "GET /siem/%61": "GET /siem/", "GET /%73iem/a": "GET /siem/", "GET /siem/a;b=c": "GET /siem/", `GET /siem/a\b`: "GET /siem/", "GET /siem/%E2%82%AC\"": "GET /siem/",
		"GET /siem/a%252Fb": "GET /siem/", "GET /siem/a%5cb": "GET /siem/", "GET /v1/a%20b/events": "GET /v1/{id}/events", "GET /siem/[Asia%2FKolkata]": "GET /siem/", "GET /siem/100%25": "GET /siem/",
		"GET /rest/a%2Fb": "GET /rest/{path...}",
	} {
		method, target, _ := strings.Cut(line, " ")
		g.note(func() { g.routes = nil })
		g.passes(method, target)
		if g.note(func() {}); !slices.Equal(g.routes, []string{pattern}) {
			t.Errorf("%s: reported %q, want %q", line, g.routes, pattern)
		}
	}
	for _, line := range []string{
		"GET /siem", "POST /siem/v1/x", "OPTIONS /siem/", "get /siem/", "GET /siemx/", "GET /Siem/", "GET /", "GET /x/siem/", "POST /api/ttp/url/get-logs/", "POST /api/ttp/url/get-log",
		"POST /API/ttp/url/get-logs", "GET /api/ttp/url/get-logs", "GET /both/", "GET /v1//events2", "GET /v1/7/events/", "GET /exact/x", "GET /exact", "GET http://localhost/x", "GET /?/siem/", "GET /x%20y",
	} {
		method, target, _ := strings.Cut(line, " ")
		g.rejects(event.RouteNotAllowed, method, target)
	}
}

func TestPathThatCouldBeReadAsAnotherRouteIsRejected(t *testing.T) {
	g := newGate(t, guard.Policy{Routes: []string{"GET /siem/", "POST /api/ttp/url/get-logs", "GET /v1/{id}/events", "GET /v1/{id}"}})
	for _, line := range []string{
		"GET /siem%2Fv1", "GET /siem%2fv1/x", "GET /siem%252Fv1", `GET /siem\v1`, "GET /siem%5Cv1", "GET /siem;x/v1", "GET /;x/siem/v1", "GET /siem%3B/v1", "GET /siem//v1", "GET /%2Fsiem/v1", "GET /siem/%2Fv1",
		"POST /api%2Fttp/url/get-logs", "POST /api/ttp/url/get-logs;x", "POST /api/ttp/url%2Fget-logs", "POST /api/ttp/url/get-logs%3fx", "POST /api/ttp/url//get-logs", "POST /api;/ttp/url/get-logs",
		"GET /v1/a%2Fb/events", "GET /v1/a%2Fevents", "GET /v1/a%252Fevents", `GET /v1/a\events`, "GET /v1/a%2Fb", "GET /v1/a%5Cevents", "GET /v1/a%2Fevents\"",
	} {
		method, target, _ := strings.Cut(line, " ")
		g.rejects(event.BadRequestTarget, method, target)
	}
	for _, line := range []string{"GET /siem/%2e%2e/x", "GET /siem/..%2f..%2fapi", "GET /siem/..;/api", `GET /siem/..\api`, "GET /siem/%252e%252e/api", "GET /siem/../siem/x", "GET /api/..%2fsiem/"} {
		method, target, _ := strings.Cut(line, " ")
		g.rejects(event.BadRequestTarget, method, target)
	}
}

func TestHeadersThatMakeAnotherRequestOfThisOneAreRejectedWhereRoutesCount(t *testing.T) {
	limited, open := newGate(t, guard.Policy{Routes: []string{"GET /siem/"}}), newGate(t, guard.Policy{})
	for _, header := range []string{"X-HTTP-Method-Override: DELETE", "X-HTTP-Method: POST", "X-Method-Override: get", "X-Original-URL: /api/email/send-email", "X-Rewrite-URL: /api"} {
		limited.rejects(event.RouteNotAllowed, "GET", "/siem/x", header)
		open.passes("GET", "/siem/x", header)
	}
}

func TestReportModeLetsPassAndReports(t *testing.T) {
	g := newGate(t, guard.Policy{Routes: []string{"GET /siem/"}, ReportOnly: true})
	g.passes("POST", "/api/email/send-email", "Content-Length: 0")
	g.passes("GET", "/siem%2Fv1")
	g.passes("GET", "/siem/x")
	if denied := g.reported(); !slices.Equal(denied, []string{"route_not_allowed passed", "bad_request_target passed"}) {
		t.Errorf("reported %q", denied)
	}
	if !slices.Equal(g.routes, []string{"GET /siem/"}) {
		t.Errorf("routes %q", g.routes)
	}
	// The other checks still apply.
	g.rejects(event.BadRequestTarget, "GET", "/siem/../x")
	g.rejects(event.HostNotAllowed, "GET", "/siem/x", "Host: evil.example")
	g.rejects(event.OriginNotAllowed, "GET", "/siem/x", evil)
}

// writes are requests that no preset may allow.
var writes = []string{
	"POST /api/email/send-email", "POST /api/gateway/hold-release", "POST /api/gateway/hold-reject", "POST /api/file/file-upload", "POST /api/user/import-users", "POST /api/user/create-user",
	"POST /api/user/update-attributes", "POST /api/user/add-delegate-user", "POST /api/user/add-to-purge-list", "POST /api/managedsender/permit-or-block-sender", "POST /api/ttp/url/create-managed-url",
	"POST /api/ttp/url/delete-managed-url", "POST /api/ttp/remediation/create", "POST /api/ttp/remediation/v2/create", "POST /api/byo-threat-intelligence/create-batch", "POST /api/byo-threat-intelligence/delete-batch",
	"POST /api/directory/add-group-member", "POST /api/directory/create-group", "POST /api/directory/execute-sync", "POST /api/domain/create-domain", "POST /api/domain/verify-domain", "POST /api/domain/get-verification-code",
	"POST /api/policy/blockedsenders/create-policy", "POST /config-snapshot/v1/create", "POST /config-snapshot/v1/restore", "POST /config-snapshot/v1/export", "POST /security/remediation/v1/bulk",
	"PATCH /account/cloud-gateway/v1/emergency-contact", "PUT /account/cloud-gateway/v1/emergency-contact", "DELETE /policy-management/cloud-gateway/v1/greylisting/policies/1", "POST /partner/v1/msp/orders",
	"POST /threat-reporting/v1/subscriptions", "POST /siem/v1/events/cg", "POST /", "POST /api/", "POST /identity/whoami",
}

func TestPresetsLetNoKeyAndNoMailPass(t *testing.T) {
	secrets := []string{
		"GET /customers/encryption-key", "HEAD /customers/encryption-key", "GET /dmarc-analyzer/v1/customers/encryption-key?x", "GET /customers/encryption-key/", "GET /Customers/Encryption-Key", "GET /customers/encryption%2Dkey",
		"GET /customers/%65ncryption-key", "GET /reports/forensic/download", "GET /dmarc-analyzer/v1/reports/forensic/download?id=1", "GET /reports/forensic/download/1", "GET /reports/FORENSIC/download",
	}
	mail := []string{
		"POST /api/archive/get-file", "POST /api/archive/get-message-part", "POST /api/archive/get-message-detail", "POST /api/gateway/message/get-file", "GET /reports/forensic/1", "GET /x/v1/messages/1/attachments",
	}
	harmless := []string{"GET /siem/v1/events/cg", "GET /identity/whoami", "GET /customers", "GET /customers/encryption-keys", "GET /reports/download-list", "POST /api/message-finder/search", "POST /api/ttp/url/get-logs"}
	for routes, c := range map[string]struct{ passes, refused [][]string }{
		"@read":                                {[][]string{harmless, mail[:4]}, [][]string{secrets}},
		"@metadata":                            {[][]string{harmless}, [][]string{secrets, mail}},
		"@read @metadata":                      {[][]string{harmless, mail}, [][]string{secrets}},
		"@metadata @read":                      {[][]string{harmless, mail}, [][]string{secrets}},
		"@read,GET /customers/encryption-key":  {[][]string{harmless, mail[:4], secrets[:2]}, [][]string{secrets[7:]}},
		"@metadata,POST /api/archive/get-file": {[][]string{harmless, mail[:1]}, [][]string{secrets, mail[1:]}},
		"GET /":                                {[][]string{secrets}, nil},
		"@read,GET /":                          {[][]string{secrets, mail}, nil},
		"/,@metadata":                          {[][]string{secrets, mail}, nil},
	} {
		g := newGate(t, guard.Policy{Routes: strings.FieldsFunc(strings.ReplaceAll(routes, " @", ",@"), func(r rune) bool { return r == ',' })})
		for _, line := range slices.Concat(c.passes...) {
			method, target, _ := strings.Cut(line, " ")
			g.passes(method, target, "Content-Length: 0")
		}
		for _, line := range slices.Concat(c.refused...) {
			method, target, _ := strings.Cut(line, " ")
			if a := g.ask(method, target, "Content-Length: 0"); a.status != 403 && a.status != 400 || g.through() != nil {
				t.Errorf("%s: %s: %d", routes, line, a.status)
			}
			if denied := g.reported(); len(denied) != 1 {
				t.Errorf("%s: %s: reported %v", routes, line, denied)
			}
		}
	}
}

func TestPresetsLetReadsPassAndNoWrite(t *testing.T) {
	for preset, reads := range map[string][]string{
		"@siem":     {"GET /siem/v1/batch/events/cg?type=delivery", "GET /siem/v1/events/ci", "HEAD /siem/v1/events/cg"},
		"@ttp-logs": {"POST /api/ttp/url/get-logs", "POST /api/ttp/attachment/get-logs", "POST /api/ttp/impersonation/get-logs"},
		"@audit":    {"POST /api/audit/get-audit-events", "POST /api/audit/get-categories"},
		"@read": {
			"GET /siem/v1/batch/events/cg", "GET /identity/whoami", "GET /threats/v1/events/1/details?tz=[Asia/Kolkata]", "GET /policy-management/cloud-gateway/v1/greylisting/policies/1", "GET /partner/v1/customers/C1",
			"POST /api/ttp/url/get-logs", "POST /api/audit/get-audit-events", "POST /api/message-finder/search", "POST /api/archive/get-file", "POST /api/gateway/message/get-file", "POST /api/ttp/threat-intel/get-feed",
			"POST /api/ttp/url/decode-url", "POST /api/account/get-account", "POST /config-snapshot/v1/list", "POST /api/gateway/find-processing-messages", "POST /api/user/get-internal-users",
		},
	} {
		g := newGate(t, guard.Policy{Routes: []string{preset}})
		for _, line := range reads {
			method, target, _ := strings.Cut(line, " ")
			g.passes(method, target)
		}
		for _, line := range writes {
			method, target, _ := strings.Cut(line, " ")
			g.rejects(event.RouteNotAllowed, method, target, "Content-Length: 0")
		}
	}
	g := newGate(t, guard.Policy{Routes: []string{"@siem"}})
	g.rejects(event.RouteNotAllowed, "POST", "/api/ttp/url/get-logs")
	g.rejects(event.RouteNotAllowed, "GET", "/identity/whoami")
}

func TestPresetsMayOverlapWithEachOtherAndWithRoutes(t *testing.T) {
	patterns, err := guard.ParseRoutes([]string{"@read", "@siem", "@audit", "@ttp-logs", "@read", "GET /siem/", "/siem/", "POST  /api/audit/get-categories", "DELETE /x/{id}", "GET /x/{id}"})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range patterns {
		if strings.HasPrefix(p, "@") || slices.Contains(patterns[:i], p) {
			t.Errorf("%q among the patterns", p)
		}
	}
	g := newGate(t, guard.Policy{Routes: patterns})
	g.passes("DELETE", "/siem/x")
	g.rejects(event.RouteNotAllowed, "DELETE", "/x")
}

func TestNoRoutesMeanEverything(t *testing.T) {
	if patterns, err := guard.ParseRoutes(nil); err != nil || len(patterns) != 0 {
		t.Errorf("%v %v", patterns, err)
	}
	newGate(t, guard.Policy{Routes: []string{}}).passes("DELETE", "/x")
}

func TestUnusableRoutesAreAllNamedAtOnce(t *testing.T) {
	for item, hint := range map[string]string{
		"@nothing":                  "@audit, @metadata, @read, @siem, @ttp-logs",
		"@Read":                     "not a preset",
		"":                          "begins with a slash",
		"siem":                      "begins with a slash",
		"GET":                       "begins with a slash",
		"GET siem/":                 "names a host",
		"GET api.mimecast.com/siem": "names a host",
		"example.com/":              "names a host",
		"get /siem/":                "capitals",
		"GET /a POST /b":            "comma",
		"GET /a b":                  "comma",
		"GET /a%2Fb":                "without escapes",
		"GET /a?b=c":                "without escapes",
		"GET /a;b":                  "without escapes",
		`GET /a\b`:                  "without escapes",
		"/a/../b":                   "match nothing",
		"/a//b":                     "match nothing",
		"//":                        "match nothing",
		"/a/.":                      "match nothing",
		"GET /{":                    "not a pattern",
		"GET /a{x}":                 "not a pattern",
		"GET /{x}/{x}":              "not a pattern",
		"G(T /":                     "not a pattern",
	} {
		_, err := guard.ParseRoutes([]string{"GET /fine/", item, "@nowhere"})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", item)) || !strings.Contains(err.Error(), hint) || !strings.Contains(err.Error(), "@nowhere") ||
			strings.Contains(err.Error(), "/fine/") || strings.Contains(err.Error(), ".go") {
			t.Errorf("%q: %v", item, err)
		}
		if _, err := newGuard(guard.Policy{Routes: []string{item}}); err == nil {
			t.Errorf("%q: a guard was made of it", item)
		}
	}
}

func TestRoutesThatOverlapWithoutOneBeingNarrowerAreBothNamed(t *testing.T) {
	for _, pair := range [][2]string{{"GET /{a}/x", "GET /x/{b}"}, {"/a/{x}", "/a/{y}"}, {"GET /{a}/x/", "GET /x/{b...}"}} {
		_, err := guard.ParseRoutes([]string{"POST /fine/", pair[0], pair[1]})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q and %q", pair[0], pair[1])) || strings.Contains(err.Error(), ".go") {
			t.Errorf("%v: %v", pair, err)
		}
	}
}
