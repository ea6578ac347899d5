package simulator_test

import (
	"testing"

	"mimecast-proxy/simulator"
)

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
