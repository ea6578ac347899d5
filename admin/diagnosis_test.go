package admin_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/admin"
	"mimecast-proxy/event"
)

func TestDiagnosisNamesTheComponent(t *testing.T) {
	fault := func(code event.Code, component event.Component, n uint32) event.Fault {
		return event.Fault{Code: code, Component: component, LastMinute: n, Window: n, LastAt: now}
	}
	number := func(n float64) *float64 { return &n }
	for _, c := range []struct {
		name         string
		change       func(*admin.Status, *admin.TokenState)
		state        string
		component    event.Component
		text, advice string // parts of them
	}{
		{"all well", func(*admin.Status, *admin.TokenState) {}, "ok", "", "All is well: 100 requests in the last minute.", ""},
		{"idle", func(s *admin.Status, _ *admin.TokenState) { s.LastMinute = 0 }, "ok", "", "no request came", ""},
		{"a few went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 4)}
		}, "ok", "", "of which 4 went wrong", ""},
		{"some went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 6)}
		}, "watch", "mimecast", "Mimecast responded with a server error (5xx): 6 of 100 requests in the last minute.", "service status"},
		{"many went wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("upstream_tls", "mimecast", 60)}
		}, "bad", "mimecast", "No trusted TLS connection", "MIMECAST_CA_FILE"},
		{"the tool and Mimecast", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("route_not_allowed", "tool", 70), fault("upstream_timeout", "mimecast", 6)}
		}, "watch", "mimecast", "did not respond in time", "PROXY_RESPONSE_TIMEOUT"},
		{"the tool", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("route_not_allowed", "tool", 70)}
		}, "bad", "tool", "The route is not allowed: 70 of 100 requests", "PROXY_ALLOW"},
		{"a flood of rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 90, Window: 90, LastAt: now}}
		}, "ok", "", "All is well: 10 requests in the last minute. The proxy rejected 90 more.", ""},
		{"a flood beside what goes wrong", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 10000
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 9990, Window: 9990, LastAt: now}, fault("mimecast_error", "mimecast", 9)}
		}, "bad", "mimecast", "server error (5xx): 9 of 10 requests", "service status"},
		{"nothing but rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{{Code: "route_not_allowed", Component: "tool", Rejected: true, LastMinute: 100, Window: 100, LastAt: now}}
		}, "watch", "tool", "The route is not allowed: all 100 requests in the last minute were rejected.", "PROXY_ALLOW"},
		{"nothing but rejected requests, a while ago", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 0
			s.Faults = []event.Fault{{Code: "host_not_allowed", Component: "tool", Rejected: true, Window: 100, LastAt: now}}
		}, "watch", "tool", "all 100 requests in the last 15 minutes", "PROXY_ALLOWED_HOSTS"},
		{"the commonest fault is named", func(s *admin.Status, _ *admin.TokenState) {
			s.Faults = []event.Fault{fault("mimecast_error", "mimecast", 8), fault("upstream_unreachable", "mimecast", 30)}
		}, "bad", "mimecast", "cannot be reached: 38 of 100", "DNS"},
		{"wrong secret", func(_ *admin.Status, k *admin.TokenState) {
			*k = admin.TokenState{LastError: "mimecast refused", Refused: true}
		}, "bad", "token", "rejects the client ID or the secret", "MIMECAST_CLIENT_SECRET"},
		{"no token", func(_ *admin.Status, k *admin.TokenState) {
			*k = admin.TokenState{LastError: "the endpoint answered 503"}
		}, "bad", "token", "There is no token", "The endpoint answered 503."},
		{"first token", func(_ *admin.Status, k *admin.TokenState) { *k = admin.TokenState{} }, "watch", "token", "first token", ""},
		{"expired", func(_ *admin.Status, k *admin.TokenState) { k.Valid = false }, "watch", "token", "a new token", ""},
		{"revoked, and no other", func(_ *admin.Status, k *admin.TokenState) { k.Rejected, k.LastError = true, "down" }, "bad", "token", "Mimecast rejects the token", "Down."},
		{"not renewed", func(_ *admin.Status, k *admin.TokenState) { k.LastError = "down" }, "watch", "token", "expires in 29 min 0 s", "Down."},
		{"rate limit", func(s *admin.Status, _ *admin.TokenState) {
			s.RateLimit = &event.RateLimit{Limit: number(300), Remaining: number(20), SeenAt: now.Add(-time.Minute)}
		}, "watch", "mimecast", "20 of 300 left", "PROXY_RATE_LIMIT_WAIT"},
		{"rate limit that was reset", func(s *admin.Status, _ *admin.TokenState) {
			s.RateLimit = &event.RateLimit{Limit: number(300), Remaining: number(20), ResetMS: number(5000), SeenAt: now.Add(-time.Minute)}
		}, "ok", "", "All is well", ""},
		{"hanging", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince, s.Requests = 3, now.Add(-time.Minute), s.Requests[15:]
		}, "watch", "mimecast", "3 requests in flight, and none has ended for 15 s", "slow"},
		{"hanging, amid rejected requests", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince = 3, now.Add(-time.Minute)
			s.Faults = []event.Fault{{Code: "api_key_required", Component: "tool", Rejected: true, LastMinute: 15, Window: 15, LastAt: now}}
			for i := range 15 {
				s.Requests[i].Fault = "api_key_required"
			}
		}, "watch", "mimecast", "3 requests in flight, and none has ended for 15 s", "slow"},
		{"just begun", func(s *admin.Status, _ *admin.TokenState) {
			s.InFlight, s.BusySince, s.Requests = 3, now.Add(-time.Second), nil
		}, "ok", "", "All is well", ""},
		{"full", func(s *admin.Status, _ *admin.TokenState) { s.InFlight = 1000 }, "watch", "proxy", "1000 in flight of 1024", "PROXY_MAX_REQUESTS"},
		{"slow Mimecast", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests {
				s.Requests[i].UpstreamMS = 6000
			}
		}, "watch", "mimecast", "slow: it takes 6.0 s", ""},
		{"slow long ago", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests[60:] {
				s.Requests[60+i].UpstreamMS = 6000
			}
		}, "ok", "", "All is well", ""},
		{"slow proxy", func(s *admin.Status, _ *admin.TokenState) {
			for i := range s.Requests {
				s.Requests[i].OwnMS = 500
			}
		}, "watch", "proxy", "slow: it adds 500 ms", "CPU"},
		{"went wrong a while ago", func(s *admin.Status, _ *admin.TokenState) {
			s.LastMinute = 0
			s.Faults = []event.Fault{{Code: "mimecast_error", Component: "mimecast", Window: 50, LastAt: now.Add(-10 * time.Minute)}}
		}, "watch", "mimecast", "50 of 100 requests in the last 15 minutes", "service status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, k := healthy(), goodToken()
			c.change(&s, &k)
			_, body := ask(t, serve(t, showing(s, k)), "GET", "/api/status")
			var got struct {
				Diagnosis admin.Diagnosis `json:"verdict"`
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			v := got.Diagnosis
			if v.State != c.state || v.Component != c.component || !strings.Contains(v.Text, c.text) || !strings.Contains(v.Advice, c.advice) || c.advice == "" && c.state == "bad" {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestDrainIsTheDiagnosisWhateverElseIsWrong(t *testing.T) {
	s := healthy()
	s.InFlight = 2
	o := showing(s, admin.TokenState{LastError: "down"})
	o.Draining = func() bool { return true }
	if _, body := ask(t, serve(t, o), "GET", "/"); !strings.Contains(body, "shutting down: 2 requests still in flight") {
		t.Error("the page does not say so")
	}
}
