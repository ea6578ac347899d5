package simulator_test

import (
	"testing"

	"mimecast-proxy/simulator"
)

const (
	listURLs  = "/api/ttp/url/get-all-managed-urls"
	createURL = "/api/ttp/url/create-managed-url"
	deleteURL = "/api/ttp/url/delete-managed-url"
)

func TestManagedURLsAreCreatedFoundAndDeleted(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	const address = "https://shop.example.com:8443/a%2Fb?x=1"
	made := r.call(createURL, map[string]any{"url": address, "action": "block", "comment": "phishing", "disableLogClick": true})
	id, _ := dig(made, "data", 0, "id").(string)
	if id == "" || code(made) != nil {
		t.Fatalf("%v", made)
	}
	for name, want := range map[string]any{
		"scheme": "https", "domain": "shop.example.com", "port": 8443.0, "path": "/a%2Fb", "queryString": "x=1", "action": "block",
		"matchType": "explicit", "comment": "phishing", "disableLogClick": true, "disableRewrite": false, "disableUserAwareness": false,
	} {
		if got := dig(made, "data", 0, name); got != want {
			t.Errorf("%s is %v, not %v", name, got, want)
		}
	}
	for filter, want := range map[string]int{"": 4, "shop": 1, "elsewhere.example.net": 0} {
		if got := list(r.call(listURLs, map[string]any{"domainOrUrl": filter}), "data"); len(got) != want {
			t.Errorf("%q: %d URLs, not %d", filter, len(got), want)
		}
	}
	for filter, want := range map[string]int{address: 1, "shop.example.com": 1, "shop": 0} {
		if got := list(r.call(listURLs, map[string]any{"domainOrUrl": filter, "exactMatch": true}), "data"); len(got) != want {
			t.Errorf("exactly %q: %d URLs, not %d", filter, len(got), want)
		}
	}
	if again := r.call(createURL, map[string]any{"url": address, "action": "permit"}); code(again) != "err_managed_url_exists_code" {
		t.Errorf("the same again: %v", again)
	}
	if gone := r.call(deleteURL, map[string]any{"id": id}); code(gone) != nil {
		t.Errorf("delete: %v", gone)
	}
	if twice := r.call(deleteURL, map[string]any{"id": id}); code(twice) != "err_managed_url_not_found" {
		t.Errorf("delete again: %v", twice)
	}
	if got := list(r.call(listURLs, map[string]any{}), "data"); len(got) != 3 {
		t.Errorf("%d URLs are left, not 3", len(got))
	}
	if n, m := r.Executions("create-managed-url")[address], r.Executions("delete-managed-url")[id]; n != 2 || m != 2 {
		t.Errorf("executed %d and %d times, not twice each", n, m)
	}
}

func TestManagedURLsAreValidated(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	for _, arg := range []map[string]any{
		{}, {"url": "https://a.example/"}, {"url": "https://a.example/", "action": "allow"}, {"url": "nonsense", "action": "block"},
		{"url": "https://a.example/#fragment", "action": "block"}, {"url": "https://a b/", "action": "block"},
		{"url": "https://a.example/", "action": "block", "matchType": "regex"},
	} {
		if got := r.call(createURL, arg); code(got) != "err_managed_url_invalid" {
			t.Errorf("%v: %v", arg, got)
		}
	}
	if got := r.call(createURL, map[string]any{"url": "a.example/x", "action": "block", "matchType": "domain"}); dig(got, "data", 0, "scheme") != "https" {
		t.Errorf("without a scheme: %v", got)
	}
}

func TestManagedURLsComeByPagesThoughSomeAreDeleted(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	page := func(token string) map[string]any {
		return r.call(listURLs, string(encode(t, map[string]any{"meta": map[string]any{"pagination": map[string]any{"pageSize": 2, "pageToken": token}}})))
	}
	first := page("")
	r.call(deleteURL, map[string]any{"id": dig(first, "data", 0, "id")})
	next, _ := dig(first, "meta", "pagination", "next").(string)
	second := page(next)
	if len(list(first, "data")) != 2 || len(list(second, "data")) != 1 || dig(second, "data", 0, "id") == dig(first, "data", 1, "id") {
		t.Errorf("%v, then %v", first, second)
	}
	if got := page("x"); code(got) != "err_validation_invalid_page_token" {
		t.Errorf("a token that was not given: %v", got)
	}
}
