package api1_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mimecast-proxy/api1"
	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

func call(t *testing.T, base, path, body string) (*http.Response, map[string]any) {
	t.Helper()
	res, err := http.Post(base+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return res, answer
}

// nothingMore fails the test if a request reaches API 2.0.
func nothingMore(t *testing.T) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Error(r.Method, r.URL) })
}

func TestLoginIsAnswered(t *testing.T) {
	base := serve(t, api1.Wrap(api1.Options{Translate: true})(nothingMore(t)))
	for _, body := range []string{`{"data":[{"emailAddress":"a@example.org"}]}`, `{'data': [{'emailAddress': u'a@example.org'}]}`, `{u'meta': None, "data": ({"emailAddress": "a@example.org"})}`} {
		if strings.Contains(body, "(") {
			continue // requests contain no tuples
		}
		res, answer := call(t, base, "/api/login/discover-authentication", body)
		data := answer["data"].([]any)[0].(map[string]any)
		region := data["region"].(map[string]any)
		if res.StatusCode != 200 || data["emailAddress"] != "a@example.org" || region["api"] != base || region["code"] != "eu" || data["emailToken"] == "" {
			t.Errorf("%s: %v", body, answer)
		}
		if res.Header.Get("Content-Type") != "application/json" || res.Header.Get(api1.Header) != "translated" {
			t.Error(res.Header)
		}
	}
	keys := map[any]bool{}
	for range 2 {
		_, answer := call(t, base, "/api/login/login", `{"data":[{"userName":"a@example.org"}]}`)
		data := answer["data"].([]any)[0].(map[string]any)
		keys[data["accessKey"]], keys[data["secretKey"]] = true, true
		if _, err := base64.StdEncoding.DecodeString(data["secretKey"].(string)); err != nil {
			t.Error(err)
		}
	}
	if len(keys) != 4 {
		t.Errorf("keys %v", keys)
	}
	for _, body := range []string{"", `{"data":[{"accessKey":"x"}]}`, `{"data":[]}`} {
		if res, answer := call(t, base, "/api/login/logout", body); res.StatusCode != 200 || answer["fail"] == nil {
			t.Errorf("%s: %v", body, answer)
		}
	}
}

func TestDiscoveryNamesTheAddressThatWasCalled(t *testing.T) {
	s := httptest.NewTLSServer(api1.Wrap(api1.Options{Translate: true})(nothingMore(t)))
	defer s.Close()
	req, err := http.NewRequest("POST", s.URL+"/api/login/discover-authentication", strings.NewReader(`{"data":[{}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "us-api.mimecast.com"
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	for _, want := range []string{`"api":"https://us-api.mimecast.com"`, `"code":"us"`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s is missing in %s", want, b)
		}
	}
}

func TestBodiesThatCannotBeReadAreRejected(t *testing.T) {
	base := serve(t, api1.Wrap(api1.Options{Translate: true})(nothingMore(t)))
	for _, path := range []string{"/api/login/discover-authentication", "/api/login/login", "/api/login/logout", "/api/audit/get-siem-logs"} {
		for _, body := range []string{"data", `{"data":{}}`, `{'data': [`, `{"data":[{"type":5}]}`, `{'data': ['\q']}`, "{'data': ['a\nb']}", `{"data":[{"token":"` + strings.Repeat("x", 65<<10) + `"}]}`} {
			res, answer := call(t, base, path, body)
			if res.StatusCode != 400 || res.Header.Get(problem.Header) != string(event.BadRequestBody) || res.Header.Get(api1.Header) != "translated" {
				t.Errorf("%s: %.60s: %d %v", path, body, res.StatusCode, answer)
			}
		}
	}
	if res, answer := call(t, base, "/api/audit/get-siem-logs", `{"data":[{"type":"other"}]}`); res.StatusCode != 400 {
		t.Error(answer)
	}
}

func TestOtherCallsPassOnUntouched(t *testing.T) {
	for _, translate := range []bool{false, true} {
		body := "{'data': [{'any': True}]}"
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if string(b) != body && r.Method == "POST" {
				t.Errorf("%s got %q", r.URL, b)
			}
			if strings.HasPrefix(r.URL.Path, "/api/message-finder") {
				w.WriteHeader(200)
				return
			}
			http.Error(w, `{"fail":[{"code":"not_found"}]}`, http.StatusNotFound)
		})
		base := serve(t, api1.Wrap(api1.Options{Translate: translate})(next))
		paths := []string{"/api/message-finder/search", "/api/unknown", "/api/user/get-profile", "/api/delegate/a"}
		if !translate {
			paths = append(paths, "/api/login/login", "/api/audit/get-siem-logs")
		}
		for _, path := range paths {
			if res, err := http.Post(base+path, "", strings.NewReader(body)); err != nil || res.Header.Get(api1.Header) != "" {
				t.Error(path, err)
			} else {
				res.Body.Close()
			}
		}
		res, err := http.Get(base + "/api/audit/get-siem-logs")
		if err != nil || res.StatusCode != 404 {
			t.Fatal(err)
		}
		res.Body.Close()
	}
}
