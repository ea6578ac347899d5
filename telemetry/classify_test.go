package telemetry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
	"mimecast-proxy/telemetry"
)

func TestFaultsNameTheComponent(t *testing.T) {
	for _, c := range []struct {
		fault     event.Code
		component event.Component
		do        func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request)
	}{
		{"", "", func(tel *telemetry.Telemetry, _ http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", true)
		}},
		{"route_not_allowed", event.ComponentClient, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			tel.Denied(r.Context(), "route_not_allowed", false)
			w.WriteHeader(403)
		}},
		{"credentials_refused", event.ComponentCredentials, fails("credentials_refused", 502)},
		{"token_unavailable", event.ComponentMimecast, fails("token_unavailable", 503)},
		{"upstream_timeout", event.ComponentMimecast, fails("upstream_timeout", 504)},
		{"too_busy", event.ComponentProxy, fails("too_busy", 503)},
		{"client_gone", event.ComponentClient, fails("client_gone", 499)},
		{"other", event.ComponentProxy, func(_ *telemetry.Telemetry, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"request_refused", event.ComponentClient, func(_ *telemetry.Telemetry, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) }},
		{"mimecast_unauthorized", event.ComponentCredentials, answers(401)},
		{"mimecast_forbidden", event.ComponentCredentials, answers(403)},
		{"mimecast_rate_limited", event.ComponentMimecast, answers(429)},
		{"mimecast_error", event.ComponentMimecast, answers(503)},
		{"request_refused", event.ComponentClient, answers(404)},
		{"", "", answers(302)},
		{"request_refused", event.ComponentClient, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			answers(403)(tel, w, r)
			fails("request_refused", 403)(tel, w, r) // such as an expired URL of a batch file
		}},
		{"too_busy", event.ComponentClient, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			tel.Limit(r.Context(), "max_requests", event.ComponentClient)
			tel.Denied(r.Context(), "too_busy", false)
			w.WriteHeader(503)
		}},
		{"too_busy", event.ComponentMimecast, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			p := problem.New(event.TooBusy, "x")
			p.Limit, p.LimitOwner = "PROXY_RATE_LIMIT_WAIT", event.ComponentMimecast
			tel.Failed(r.Context(), p)
			p.ServeHTTP(w, r)
		}},
		{"mimecast_truncated", event.ComponentMimecast, func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
			answers(200)(tel, w, r)
			panic(http.ErrAbortHandler)
		}},
		{"panic", event.ComponentProxy, func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) { panic("x") }},
	} {
		r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { c.do(tel, w, r) }
		})
		r.get("/")
		r.end()
		snap := r.Snapshot()
		if got := snap.Requests[0]; got.Fault != c.fault || got.Component != c.component {
			t.Errorf("%q of %q, want %q of %q", got.Fault, got.Component, c.fault, c.component)
		}
		if text := snap.Requests[0].Error; strings.HasPrefix(string(c.fault), "mimecast_") && !strings.HasPrefix(text, string(c.fault)+": ") {
			t.Errorf("%s: no word of what to do: %q", c.fault, text)
		}
		if (len(snap.Faults) == 1 && snap.Faults[0].Component == c.component) != (c.fault != "") {
			t.Errorf("%q: %+v", c.fault, snap.Faults)
		}
	}
}

func fails(code event.Code, status int) func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) {
	return func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
		tel.Failed(r.Context(), problem.New(code, "why"))
		w.WriteHeader(status)
	}
}

func answers(status int) func(*telemetry.Telemetry, http.ResponseWriter, *http.Request) {
	return func(tel *telemetry.Telemetry, w http.ResponseWriter, r *http.Request) {
		tel.Answered(r.Context(), status, http.Header{}, time.Millisecond)
		w.WriteHeader(status)
	}
}
