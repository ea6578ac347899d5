package telemetry_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/telemetry"
)

func TestMetricsShowTheHealth(t *testing.T) {
	h := event.Health{
		Judgment: event.Judgment{State: event.HealthDown, Component: event.ComponentMimecast, AffectedShare: 0.75},
		Accounts: []event.NamedJudgment{{Name: "emea", Judgment: event.Judgment{State: event.HealthDown}}},
		Clients:  []event.NamedJudgment{{Name: "splunk", Judgment: event.Judgment{State: event.HealthOK}}},
	}
	tel := newTelemetry(t, telemetry.Options{Health: func() event.Health { return h }})
	hasSeries(t, scrape(t, tel),
		`health{component="",state="ok"} 0`, `health{component="mimecast",state="down"} 1`, `health{component="proxy",state="down"} 0`,
		"health_affected_ratio 0.75", `account_health{account="emea",state="down"} 1`, `client_health{client="splunk",state="ok"} 1`)
	h.Judgment = event.Judgment{State: event.HealthOK}
	hasSeries(t, scrape(t, tel), `health{component="",state="ok"} 1`, `health{component="mimecast",state="down"} 0`)
}

func TestLevelOfALineFollowsTheHealth(t *testing.T) {
	state := event.HealthOK
	r := newRig(t, telemetry.Options{State: func() event.HealthState { return state }}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			status := map[string]int{"/ok": 200, "/wrong": 404, "/fails": 503}[r.URL.Path]
			tel.Answered(r.Context(), status, http.Header{}, time.Millisecond)
			w.WriteHeader(status)
		}
	})
	for _, s := range event.HealthStates {
		state = s
		for _, path := range []string{"/ok", "/wrong", "/fails"} {
			if _, err := r.get(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.end()
	var levels []string
	for line := range strings.Lines(r.log.String()) {
		levels = append(levels, strings.Split(line, `"`)[3])
	}
	if got, want := strings.Join(levels, " "), "info info warn info info warn info info error"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

func TestInFlightRequestsAreShownByAgeAndPhase(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/sent" {
				tel.Sent(r.Context(), time.Now())
			}
			entered <- true
			<-leave
		}
	})
	ended := make(chan error)
	for _, path := range []string{"/first", "/sent"} {
		go func() { _, err := r.get(path); ended <- err }()
		<-entered
	}
	running := r.Snapshot().Running
	if len(running) != 2 || running[0].Path != "/first" || running[0].Phase != event.PhaseProxy || running[1].Phase != event.PhaseMimecast || running[0].AgeMS < running[1].AgeMS {
		t.Errorf("%+v", running)
	}
	if waiting := r.Waiting(); len(waiting) != 1 || waiting[0].Account != "default" || waiting[0].Since.IsZero() {
		t.Errorf("%v", waiting)
	}
	close(leave)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	r.end()
	if running := r.Snapshot().Running; len(running) != 0 {
		t.Errorf("%+v", running)
	}
}

func TestOutcomesSayWhetherTheAPIResponded(t *testing.T) {
	var outcomes []event.Outcome
	r := newRig(t, telemetry.Options{Ended: func(o event.Outcome) { outcomes = append(outcomes, o) }}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/local" && r.URL.Path != "/file" {
				tel.Sent(r.Context(), time.Now())
			}
			if r.URL.Path != "/local" && r.URL.Path != "/hangs" {
				tel.Answered(r.Context(), http.StatusOK, http.Header{}, time.Millisecond)
			}
		}
	})
	for _, path := range []string{"/local", "/file", "/api", "/hangs"} {
		if _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	if len(outcomes) != 4 {
		t.Fatalf("%+v", outcomes)
	}
	for i, want := range []struct{ local, answered, waited bool }{{true, false, false}, {false, false, false}, {false, true, false}, {true, false, true}} {
		if o := outcomes[i]; o.Local != want.local || o.Answered.IsZero() == want.answered || (o.Waited > 0) != want.waited {
			t.Errorf("%d: %+v, not %+v", i, o, want)
		}
	}
}

func TestRequestThatIsHeldBackDoesNotWaitForMimecast(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	r := newRig(t, telemetry.Options{}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(_ http.ResponseWriter, r *http.Request) {
			tel.Sent(r.Context(), time.Now())
			tel.Answered(r.Context(), http.StatusTooManyRequests, http.Header{}, time.Millisecond)
			entered <- true
			<-leave
		}
	})
	ended := make(chan error)
	go func() { _, err := r.get("/"); ended <- err }()
	<-entered
	if running := r.Snapshot().Running; len(running) != 1 || running[0].Phase != event.PhaseProxy || len(r.Waiting()) != 0 {
		t.Errorf("%+v", running)
	}
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.end()
}

func TestClientOverItsOwnLimitIsNoFaultOfTheProxy(t *testing.T) {
	var outcomes []event.Outcome
	r := newRig(t, telemetry.Options{Ended: func(o event.Outcome) { outcomes = append(outcomes, o) }}, func(tel *telemetry.Telemetry) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/own" {
				tel.Limit(r.Context(), "max_requests", event.ComponentClient)
			}
			tel.Denied(r.Context(), event.TooBusy, false)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	for _, path := range []string{"/own", "/all"} {
		if _, err := r.get(path); err != nil {
			t.Fatal(err)
		}
	}
	r.end()
	if len(outcomes) != 2 || outcomes[0].LimitOwner != event.ComponentClient || outcomes[1].LimitOwner != "" {
		t.Errorf("%+v", outcomes)
	}
	var ofClient, ofProxy uint32
	for _, p := range r.Snapshot().Points {
		ofClient, ofProxy = ofClient+p.Client, ofProxy+p.Proxy
	}
	if ofClient != 1 || ofProxy != 1 {
		t.Errorf("%d of the client, %d of the proxy", ofClient, ofProxy)
	}
	if log := r.log.String(); !strings.HasPrefix(log, `{"level":"info"`) { // the second line is suppressed for now
		t.Error(log)
	}
}
