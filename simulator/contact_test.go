package simulator_test

import (
	"strings"
	"testing"

	"mimecast-proxy/simulator"
)

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
