package simulator_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

func TestTokenResponseHasTheObservedShape(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		status, answer := r.fetch(form(simulator.DefaultClientID, simulator.DefaultClientSecret))
		if status != 200 || answer["token_type"] != "Bearer" || answer["expires_in"] != 1799.0 || answer["scope"] != "" || len(answer) != 4 {
			t.Fatalf("status %d, answer %v", status, answer)
		}
		if r.TokenRequests() != 1 {
			t.Errorf("%d token requests were counted, not 1", r.TokenRequests())
		}
	})
}

func TestTokenEndpointRejectsWhatIsNotTheGrant(t *testing.T) {
	r := start(t, simulator.Options{})
	ok := form(simulator.DefaultClientID, simulator.DefaultClientSecret)
	const urlencoded = "application/x-www-form-urlencoded"
	for name, c := range map[string]struct {
		method, kind, query, body string
		status                    int
		code                      string
	}{
		"another secret":        {"POST", urlencoded, "", form(simulator.DefaultClientID, "x").Encode(), 401, "InvalidClientIdentifier"},
		"another client":        {"POST", urlencoded, "", form("x", simulator.DefaultClientSecret).Encode(), 401, "InvalidClientIdentifier"},
		"no secret":             {"POST", urlencoded, "", form(simulator.DefaultClientID, "").Encode(), 400, "0001"},
		"another grant":         {"POST", urlencoded, "", strings.Replace(ok.Encode(), "client_credentials", "password", 1), 400, "UnsupportedGrantType"},
		"no form":               {"POST", "application/json", "", `{"grant_type":"client_credentials"}`, 400, "InvalidRequest"},
		"a parameter twice":     {"POST", urlencoded, "", ok.Encode() + "&client_id=x", 400, "InvalidRequest"},
		"a form that is none":   {"POST", urlencoded, "", "%zz", 400, "InvalidRequest"},
		"secrets in the query":  {"POST", urlencoded, "?" + ok.Encode(), "", 400, "UnsupportedGrantType"},
		"a form without an end": {"POST", urlencoded, "", strings.Repeat("a", 1<<20), 400, "InvalidRequest"},
		"another method":        {"GET", "", "?" + ok.Encode(), "", 405, "method_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := r.do(r.request(c.method, "/oauth/token"+c.query, strings.NewReader(c.body), "Content-Type", c.kind))
			if got := code(decode(t, body)); res.StatusCode != c.status || got != c.code {
				t.Errorf("status %d, code %v: %s", res.StatusCode, got, body)
			}
		})
	}
}

func TestTokensCoexistUntilTheyExpire(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now, TokenTTL: 30 * time.Second})
	first := r.login().token
	c.Advance(10 * time.Second)
	second := r.login().token
	ask := func(token string) (int, any) {
		res, answer := r.get("/identity/whoami", "Authorization", "Bearer "+token)
		return res.StatusCode, code(answer)
	}
	for _, token := range []string{first, second} {
		if status, code := ask(token); status != 200 {
			t.Errorf("a valid token got %d %v", status, code)
		}
	}
	c.Advance(20 * time.Second)
	if status, code := ask(first); status != 401 || code != "token_expired" {
		t.Errorf("at the end of its life a token got %d %v", status, code)
	}
	if status, code := ask(second); status != 200 {
		t.Errorf("the younger token got %d %v", status, code)
	}
}

func TestGatewayRejectsTokensAsMimecastDoes(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		revoked := r.login().token
		r.RevokeTokens()
		valid := r.login().token
		for name, c := range map[string]struct {
			headers []string
			code    string
		}{
			"none":                 {nil, "Unauthorized Request"},
			"one of API 1.0":       {[]string{"MC abc:def"}, "Unauthorized Request"},
			"two":                  {[]string{"Bearer " + valid, "Bearer " + valid}, "Unauthorized Request"},
			"made up":              {[]string{"Bearer abc"}, "token_verification_failed"},
			"changed":              {[]string{"Bearer " + valid[:len(valid)-2] + "xx"}, "token_verification_failed"},
			"revoked":              {[]string{"Bearer " + revoked}, "token_verification_failed"},
			"valid":                {[]string{"Bearer " + valid}, ""},
			"valid, in lower case": {[]string{"bearer " + valid}, ""},
		} {
			req := r.request("GET", "/identity/whoami", nil, "Authorization", "")
			req.Header["Authorization"] = c.headers
			res, body := r.do(req)
			if c.code == "" {
				if res.StatusCode != 200 {
					t.Errorf("%s: status %d", name, res.StatusCode)
				}
				continue
			}
			if got := code(decode(t, body)); res.StatusCode != 401 || got != c.code {
				t.Errorf("%s: status %d, code %v", name, res.StatusCode, got)
			}
		}
		if n := r.Counts().Ambiguous; n != 1 {
			t.Errorf("%d requests with two Authorization headers were counted, not 1", n)
		}
	})
}

func TestCredentialsCanBeRotatedWhileItRuns(t *testing.T) {
	r := start(t, simulator.Options{ClientID: "a", ClientSecret: "one&two=+%"})
	if status, _ := r.fetch(form("a", "one&two=+%")); status != 200 {
		t.Fatalf("status %d before", status)
	}
	r.SetCredentials("a", "two")
	if status, _ := r.fetch(form("a", "one&two=+%")); status != 401 {
		t.Errorf("status %d with the old secret", status)
	}
	if status, _ := r.fetch(form("a", "two")); status != 200 {
		t.Errorf("status %d with the new secret", status)
	}
}

func TestResponsesBearTheGatewaysHeaders(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		ids := map[string]bool{}
		for _, target := range []string{"/identity/whoami", "/identity/whoami", "/nowhere"} {
			res, _ := r.login().get(target)
			for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache", "Via": "1.1 google"} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %s: %q", target, name, got)
				}
			}
			if res.Header.Get("Alt-Svc") == "" || res.ContentLength != -1 {
				t.Errorf("Alt-Svc %q, length %d", res.Header.Get("Alt-Svc"), res.ContentLength)
			}
			ids[res.Header.Get("X-Request-Id")] = true
		}
		if len(ids) != 3 {
			t.Errorf("request ids %v", ids)
		}
	})
}

func TestResponsesAreCompressedForWhoeverTakesThat(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	for accept, want := range map[string]string{"gzip": "gzip", "br, gzip;q=0.5": "gzip", "*": "gzip", "gzip;q=0": "", "identity": "", "": ""} {
		res, body := r.do(r.request("GET", "/siem/v1/events/cg", nil, "Accept-Encoding", accept))
		if got := res.Header.Get("Content-Encoding"); got != want {
			t.Errorf("%q was answered with %q", accept, got)
		}
		if want == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if !json.Valid(body) {
			t.Errorf("%q was answered with no JSON", accept)
		}
	}
}

func TestRoutesRespondAsAGatewayDoes(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	r.Forbid("/siem/", "/api/dlp/")
	for _, c := range []struct {
		method, target string
		status         int
		code           string
	}{
		{"GET", "/nowhere", 404, "not_found"},
		{"GET", "/", 404, "not_found"},
		{"GET", "//identity/whoami", 404, "not_found"},
		{"GET", "/identity/../identity/whoami", 404, "not_found"},
		{"GET", "/identity/whoami/", 404, "not_found"},
		{"GET", "/partner/v1/customers/", 404, "not_found"},
		{"POST", "/api/audit/get-siem-logs", 404, "not_found"}, // only API 1.0 has it
		{"POST", "/api/login/login", 404, "not_found"},
		{"GET", "/human-risk/v1", 404, "not_found"},
		{"GET", "/domain/cloud-gateway/v1/internal-domains//dns-records/mx", 404, "not_found"},
		{"GET", "/human-risk/v1/departments", 501, "not_simulated"},
		{"HEAD", "/human-risk/v1/departments", 501, ""},
		{"POST", "/api/directory/create-group", 501, "not_simulated"},
		{"PUT", "/dmarc-analyzer/v1/domain-groups/5", 501, "not_simulated"},
		{"GET", "/domain/cloud-gateway/v1/internal-domains/5/dns-records/mx", 501, "not_simulated"},
		{"POST", "/directory/cloud-gateway/v1/groups/5/remove-members", 501, "not_simulated"},
		{"GET", "/api/directory/create-group", 405, "method_not_allowed"},
		{"GET", "/api/audit/get-audit-events", 405, "method_not_allowed"},
		{"DELETE", "/identity/whoami", 405, "method_not_allowed"},
		{"GET", "/siem/v1/events/cg", 403, "app_forbidden"},
		{"POST", "/api/dlp/get-logs", 403, "app_forbidden"},
	} {
		res, body := r.do(r.request(c.method, c.target, nil))
		var got any = ""
		if c.method != "HEAD" {
			got = code(decode(t, body))
		}
		if res.StatusCode != c.status || got != c.code {
			t.Errorf("%s %s: status %d, code %v", c.method, c.target, res.StatusCode, got)
		}
		if c.status == 405 && res.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.target)
		}
	}
	r.Forbid()
	if res, _ := r.get("/siem/v1/events/cg"); res.StatusCode != 200 {
		t.Errorf("status %d once nothing is forbidden", res.StatusCode)
	}
}

func TestSIEMQuotaIsTheDocumentedOne(t *testing.T) {
	c := newClock()
	r := start(t, simulator.Options{Now: c.Now}).login()
	ask := func(target string) *http.Response {
		res, _ := r.get(target)
		return res
	}
	for i := range 50 {
		res := ask("/siem/v1/batch/events/cg?pageSize=1")
		if res.StatusCode != 200 || res.Header.Get("X-RateLimit-Remaining") != strconv.Itoa(49-i) || res.Header.Get("X-RateLimit-Limit") != "50" {
			t.Fatalf("call %d: status %d, %v", i, res.StatusCode, res.Header)
		}
	}
	c.Advance(time.Minute)
	res := ask("/siem/v1/batch/events/cg?pageSize=1")
	if res.StatusCode != 429 || res.Header.Get("X-RateLimit-Reset") != "840000" {
		t.Fatalf("past the quota: status %d, reset %q", res.StatusCode, res.Header.Get("X-RateLimit-Reset"))
	}
	if res := ask("/siem/v1/batch/events/ci?pageSize=1"); res.StatusCode != 200 {
		t.Errorf("another function shares the quota: status %d", res.StatusCode)
	}
	if res := ask("/identity/whoami"); res.Header.Get("X-RateLimit-Limit") != "" {
		t.Error("a function without a quota reports one")
	}
	c.Advance(14*time.Minute - time.Millisecond)
	if res := ask("/siem/v1/batch/events/cg?pageSize=1"); res.StatusCode != 429 || res.Header.Get("X-RateLimit-Reset") != "1" {
		t.Errorf("before the reset: status %d, reset %q", res.StatusCode, res.Header.Get("X-RateLimit-Reset"))
	}
	c.Advance(time.Millisecond)
	if res := ask("/siem/v1/batch/events/cg?pageSize=1"); res.StatusCode != 200 {
		t.Errorf("at the reset: status %d", res.StatusCode)
	}
}

func TestQuotaAndItsHeadersCanBeSet(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	r.SetQuota("/api/dlp/get-logs", 1, time.Hour)
	r.SetRateLimitHeader("X-Rate-Limit-")
	ask := func() *http.Response {
		res, _ := r.do(r.request("POST", "/api/dlp/get-logs", nil))
		return res
	}
	if res := ask(); res.StatusCode != 200 || res.Header.Get("X-Rate-Limit-Remaining") != "0" {
		t.Errorf("first call: status %d, %v", res.StatusCode, res.Header)
	}
	if res := ask(); res.StatusCode != 429 || res.Header.Get("X-Rate-Limit-Reset") == "" {
		t.Errorf("second call: status %d, %v", res.StatusCode, res.Header)
	}
	r.SetQuota("/api/dlp/get-logs", 0, 0)
	if res := ask(); res.StatusCode != 200 {
		t.Errorf("without a quota: status %d", res.StatusCode)
	}
}

func TestRequestsAreRecordedAsTheyCame(t *testing.T) {
	bothProtocols(t, simulator.Options{RequestLog: 3}, func(t *testing.T, r *rig) {
		r.login()
		target := "/threats/v1/events?zone=[Asia/Kolkata]&from=2026-03-05T00:00:00+00:00&a=1;b=2&x=%2F%2f"
		req := r.request("GET", "/", nil)
		req.URL = &url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Opaque: target}
		req.Header["X-Twice"] = []string{"a", "b"}
		_, body := r.do(req)
		if got := dig(decode(t, body), "meta", "query"); got != target[strings.IndexByte(target, '?')+1:] {
			t.Errorf("the query came back as %q", got)
		}
		r.do(r.request("POST", "/_simulator/echo", strings.NewReader("hello")))
		all := r.Requests()
		if len(all) != 3 {
			t.Fatalf("%d requests are remembered, not 3", len(all))
		}
		got := all[1]
		if got.Target != target || len(got.Header["X-Twice"]) != 2 || len(got.Header["Authorization"]) != 1 || got.Status != 200 {
			t.Errorf("recorded %+v", got)
		}
		eventually(t, "the request is done", func() bool { return r.Requests()[2].Done })
		// The SHA-256 hash of "hello", from another tool.
		if got := r.Requests()[2]; got.BodyLength != 5 || got.BodySHA256 != "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" {
			t.Errorf("recorded %+v", got)
		}
		r.do(r.request("GET", "/identity/whoami", nil))
		if all := r.Requests(); len(all) != 3 || all[0].Target != target {
			t.Errorf("the log did not drop its oldest entry: %d, %q", len(all), all[0].Target)
		}
		if c := r.Counts(); c.Requests != 4 || c.TokenRequests != 1 || c.Authorized != 3 || c.Statuses[200] != 4 {
			t.Errorf("counts %+v", c)
		}
		r.Reset()
		if c := r.Counts(); len(r.Requests()) != 0 || c.Requests != 0 || r.TokenRequests() != 0 {
			t.Errorf("after a reset: %+v", c)
		}
	})
}

func TestEchoTellsWhatArrived(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		if res, _ := r.get("/_simulator/echo"); res.StatusCode != 401 {
			t.Errorf("without a token: status %d", res.StatusCode)
		}
		r.login()
		req := r.request("PATCH", "/_simulator/echo?a=%2F", io.MultiReader(strings.NewReader("ab"), strings.NewReader("c")))
		req.Trailer = http.Header{"X-Sum": {"7"}}
		_, body := r.do(req)
		got := decode(t, body)
		if got["method"] != "PATCH" || got["target"] != "/_simulator/echo?a=%2F" || got["bodyLength"] != 3.0 || dig(got, "trailer", "X-Sum", 0) != "7" {
			t.Errorf("echo %v", got)
		}
	})
}

// A function that is not simulated gets the same checks as one that is.
func TestNotSimulatedFunctionIsAFunction(t *testing.T) {
	r := start(t, simulator.Options{})
	const target = "/human-risk/v1/departments"
	if res, _ := r.get(target); res.StatusCode != 401 {
		t.Errorf("status %d without a token", res.StatusCode)
	}
	r.login().Forbid("/human-risk/")
	if res, _ := r.get(target); res.StatusCode != 403 {
		t.Errorf("status %d without the product", res.StatusCode)
	}
}
