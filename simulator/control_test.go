package simulator_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

// control sends a request to the control API as curl does.
func (r *rig) control(method, target string, form url.Values, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.ControlURL+target, strings.NewReader(form.Encode()))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.HasSuffix(string(body), "\n") {
		r.t.Errorf("%s %s: no newline at the end of %q", method, target, body)
	}
	return res.StatusCode, string(body)
}

func TestControlTurnsTheKnobs(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	if _, help := r.control("GET", "/", nil); !strings.Contains(help, "curl -X POST "+r.ControlURL+"/revoke") || !strings.Contains(help, "token-dead") {
		t.Errorf("help: %s", help)
	}
	ask := func() int {
		res, _ := r.get("/identity/whoami")
		return res.StatusCode
	}
	if status, body := r.control("POST", "/revoke", nil); status != 200 || ask() != 401 {
		t.Errorf("revoke: %d %s", status, body)
	}
	r.login()
	status, body := r.control("POST", "/faults", url.Values{"name": {"slow"}, "delay": {"1ms"}, "count": {"5"}, "header": {"X-A: b: c"}, "token": {"expires_in=0"}})
	if status != 201 || !strings.Contains(body, `"delay": "1ms"`) || !strings.Contains(body, `"X-A": "b: c"`) || !strings.Contains(body, `"expires_in": 0`) {
		t.Errorf("a fault by form: %d %s", status, body)
	}
	if all := r.Faults(); len(all) != 1 || all[0].Delay != time.Millisecond || all[0].Count != 5 {
		t.Errorf("faults %+v", all)
	}
	if _, body := r.control("GET", "/faults", nil); !strings.Contains(body, `"name": "slow"`) || !strings.Contains(body, `"id": 1`) {
		t.Errorf("faults: %s", body)
	}
	if status, _ := r.control("DELETE", "/faults?id=1", nil); status != 200 || len(r.Faults()) != 0 {
		t.Errorf("removal: %d", status)
	}
	r.AddFault(simulator.Fault{Status: 500})
	if _, body := r.control("DELETE", "/faults", nil); !strings.Contains(body, `"removed": 1`) || ask() != 200 {
		t.Errorf("removal: %s", body)
	}
	_, state := r.control("GET", "/state", nil)
	if !strings.Contains(state, `"tokenRequests": 2`) || !strings.Contains(state, "GET /identity/whoami") || strings.Contains(state, r.token) {
		t.Errorf("state: %s", state)
	}
	if status, _ := r.control("POST", "/reset", nil); status != 200 || r.TokenRequests() != 0 {
		t.Errorf("reset: %d", status)
	}
}

func TestControlTakesJSON(t *testing.T) {
	r := start(t, simulator.Options{})
	req, err := http.NewRequestWithContext(t.Context(), "POST", r.ControlURL+"/faults", strings.NewReader(`{"status":418,"header":{"A":"b"},"count":2,"delay":"forever"}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if all := r.Faults(); res.StatusCode != 201 || len(all) != 1 || all[0].Status != 418 || all[0].Delay != simulator.Forever {
		t.Errorf("%d %+v", res.StatusCode, all)
	}
}

func TestControlSetsWhatIsAsked(t *testing.T) {
	r := start(t, simulator.Options{}).login()
	set := func(form url.Values) {
		t.Helper()
		if status, body := r.control("POST", "/settings", form); status != 200 {
			t.Errorf("%v: %d %s", form, status, body)
		}
	}
	set(url.Values{"token_ttl": {"90s"}, "client_id": {"a"}, "client_secret": {"b"}})
	if status, answer := r.fetch(form("a", "b")); status != 200 || answer["expires_in"] != 90.0 {
		t.Errorf("%d %v", status, answer)
	}
	set(url.Values{"forbid": {"/identity/"}})
	if res, _ := r.get("/identity/whoami"); res.StatusCode != 403 {
		t.Errorf("status %d", res.StatusCode)
	}
	set(url.Values{"forbid": {""}, "quota": {"/identity/whoami"}, "calls": {"1"}, "per": {"1h"}, "rate_limit_header": {"X-Mimecast-RateLimit-"}})
	r.get("/identity/whoami")
	if res, _ := r.get("/identity/whoami"); res.StatusCode != 429 || res.Header.Get("X-Mimecast-RateLimit-Reset") == "" {
		t.Errorf("status %d, %v", res.StatusCode, res.Header)
	}
	for _, wrong := range []url.Values{{}, {"token_ttl": {"x"}}, {"client_id": {"a"}}, {"quota": {"/"}}, {"token_ttl": {"1s"}, "quota": {"/"}, "calls": {"x"}}} {
		if status, body := r.control("POST", "/settings", wrong); status != 400 {
			t.Errorf("%v: %d %s", wrong, status, body)
		}
	}
	if _, answer := r.fetch(form("a", "b")); answer["expires_in"] != 90.0 {
		t.Errorf("a wrong setting was half applied: %v", answer)
	}
}

func TestControlRejectsBrowsersFromElsewhereAndMistakes(t *testing.T) {
	r := start(t, simulator.Options{})
	for _, c := range []struct {
		method, target string
		form           url.Values
		header         []string
		status         int
	}{
		{"POST", "/revoke", nil, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", "/revoke", nil, []string{"Origin", "https://evil.example"}, 403},
		{"POST", "/revoke", nil, []string{"Host", "evil.example"}, 403},
		{"GET", "/state", nil, []string{"Host", "127.0.0.1.evil.example:80"}, 403},
		{"GET", "/state", nil, []string{"Host", "localhost"}, 200},
		{"GET", "/state", nil, []string{"Host", "[::1]:1"}, 200},
		{"GET", "/revoke", nil, nil, 405},
		{"POST", "/faults", url.Values{"nonsense": {"1"}}, nil, 400},
		{"POST", "/faults", url.Values{"count": {"x"}}, nil, 400},
		{"POST", "/faults", url.Values{`{"status":500}`: {""}}, nil, 400},
		{"DELETE", "/faults?id=x", nil, nil, 400},
	} {
		if status, body := r.control(c.method, c.target, c.form, c.header...); status != c.status {
			t.Errorf("%s %s %v %v: %d %s", c.method, c.target, c.form, c.header, status, body)
		}
	}
}
