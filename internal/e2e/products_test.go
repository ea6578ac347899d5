package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/simulator"
)

func TestCheckListsTheProductsThatTheApplicationMayUse(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	sim.Forbid("/siem/", "/api/dlp/")
	sim.AddFault(simulator.Fault{Path: "/partner/", Status: 500, Code: "internal-error"})
	sim.AddFault(simulator.Fault{Path: "/threats/", Cut: simulator.CutAnswer})
	want := map[string]string{"SIEM events, stream": "no", "SIEM events, batch files": "no", "Data leak prevention logs": "no", "Partner": "unknown", "Security events": "unknown"}

	p := program.Start(t, program.Environ(t, sim), "check", "--products", "--json")
	var report struct {
		OK    bool
		Steps []struct {
			Step     string
			OK       bool
			Products []struct {
				Product, Request, Allowed, Detail string
				Status                            int
			}
		}
	}
	if code := p.Exit(); code != 0 || json.Unmarshal([]byte(p.Stdout.String()), &report) != nil || !report.OK || len(report.Steps) != 6 || report.Steps[5].Step != "products" {
		t.Fatalf("exit %d\n%s%s", code, p.Stdout.String(), p.Stderr.String())
	}
	products := report.Steps[5].Products
	if len(products) != len(mimecast.Products) {
		t.Errorf("%d products", len(products))
	}
	for _, got := range products {
		expected := want[got.Product]
		if expected == "" {
			expected = "yes"
		}
		if got.Allowed != expected || expected == "no" && (got.Status != 403 || got.Detail != "app_forbidden") {
			t.Errorf("%+v, want %s", got, expected)
		}
	}
	for _, r := range sim.Requests() {
		if !strings.HasPrefix(r.Target, "/oauth/") && r.Target != "/" && r.Target != "/identity/whoami" &&
			!slices.ContainsFunc(mimecast.Products, func(f mimecast.Function) bool { return f.Path == r.Target && f.Method == r.Method }) {
			t.Errorf("it asked %s %s", r.Method, r.Target)
		}
	}

	people := program.Start(t, program.Environ(t, sim), "check", "--products")
	if code, text := people.Exit(), people.Stdout.String(); code != 0 || !strings.Contains(text, "ok      products       8 of 13 can be used, 2 unknown") ||
		!strings.Contains(text, "        no       Data leak prevention logs       POST /api/dlp/get-logs: status 403, app_forbidden\n") ||
		!strings.Contains(text, "        yes      Account                         POST /api/account/get-account: status 200\n") {
		t.Errorf("exit %d\n%s%s", code, text, people.Stderr.String())
	}
}

func TestCheckAsksForProductsOnlyOnceItPassed(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	sim.Forbid("/identity/")
	p := program.Start(t, program.Environ(t, sim), "check", "--products")
	if code := p.Exit(); code != 1 || strings.Contains(p.Stdout.String(), "products") {
		t.Errorf("exit %d\n%s", code, p.Stdout.String())
	}
	for _, r := range sim.Requests() {
		if strings.HasPrefix(r.Target, "/api/") || strings.HasPrefix(r.Target, "/siem/") {
			t.Errorf("it asked for %s", r.Target)
		}
	}
}
