package health_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// world is a monitor with facts that a test can change, in a bubble of synctest.
type world struct {
	*health.Monitor
	facts health.Facts
}

func newWorld() *world {
	w := new(world)
	w.facts.Accounts = []health.Account{{Name: "default", Valid: true, Fetched: time.Now()}}
	w.Monitor = health.New(time.Now(), func() health.Facts { return w.facts })
	return w
}

// send records n requests of a client, evenly over the given time.
func (w *world) send(n int, within time.Duration, code event.Code) {
	for range n {
		time.Sleep(within / time.Duration(n))
		w.Record(event.Outcome{At: time.Now(), Code: code})
	}
}

func (w *world) expect(t *testing.T, state event.HealthState, component event.Component, cause event.Cause) {
	t.Helper()
	if h := w.Health(); h.State != state || h.Component != component || h.Cause != cause {
		t.Errorf("%s, %q, %q after %s, not %s, %q, %q: %+v", h.State, h.Component, h.Cause, h.Text, state, component, cause, h.Judgment)
	}
}

func (w *world) expectOK(t *testing.T) { t.Helper(); w.expect(t, event.HealthOK, "", "") }

func TestJudgment(t *testing.T) {
	t.Parallel()
	down, degraded := event.HealthDown, event.HealthDegraded
	for _, test := range []struct {
		name      string
		play      func(w *world)
		state     event.HealthState
		component event.Component
		cause     event.Cause
	}{
		{"nothing", func(*world) {}, event.HealthOK, "", ""},
		{"one failure of one in an idle hour", func(w *world) { time.Sleep(time.Hour); w.send(1, 0, event.MimecastError) }, event.HealthOK, "", ""},
		{"two of two", func(w *world) { w.send(2, 0, event.MimecastError) }, event.HealthOK, "", ""},
		{"three of three", func(w *world) { w.send(3, time.Second, event.MimecastError) }, down, event.ComponentMimecast, "mimecast_error"},
		{"three polls in ten minutes", func(w *world) { w.send(3, 10*time.Minute, event.UpstreamTimeout) }, down, event.ComponentMimecast, "upstream_timeout"},
		{"outage after a busy minute", func(w *world) { w.send(6000, time.Minute, ""); w.send(1000, 10*time.Second, event.UpstreamUnreachable) }, down, event.ComponentMimecast, "upstream_unreachable"},
		{"one in ten", func(w *world) {
			for range 100 {
				w.send(9, 90*time.Millisecond, "")
				w.send(1, 10*time.Millisecond, event.MimecastError)
			}
		}, degraded, event.ComponentMimecast, "mimecast_error"},
		{"a client's mistakes", func(w *world) { w.send(100, time.Second, event.RequestRefused) }, degraded, event.ComponentClient, "request_refused"},
		{"some mistakes of a client's", func(w *world) { w.send(40, time.Second, event.RequestRefused); w.send(60, time.Second, "") }, event.HealthOK, "", ""},
		{"rejected requests alone", func(w *world) { w.send(20, time.Second, event.APIKeyRequired) }, degraded, event.ComponentClient, "api_key_required"},
		{"rejected requests beside others", func(w *world) { w.send(20, time.Second, event.APIKeyRequired); w.send(1, 0, "") }, event.HealthOK, "", ""},
		{"token endpoint fails, token still valid", func(w *world) { w.facts.Accounts[0].Failures, w.facts.Accounts[0].Error = 2, "503" }, degraded, event.ComponentMimecast, event.CauseTokenNotRenewed},
		{"token endpoint fails, token revoked", func(w *world) {
			a := &w.facts.Accounts[0]
			a.Failures, a.Error, a.Rejected = 1, "503", true
			w.send(5, time.Second, event.MimecastUnauthorized)
		}, down, event.ComponentMimecast, "token_unavailable"},
		{"credentials are rejected", func(w *world) {
			w.facts.Accounts[0] = health.Account{Name: "default", Failures: 1, Error: "401", Refused: true}
		}, down, event.ComponentCredentials, "credentials_refused"},
		{"first token is being fetched", func(w *world) { w.facts.Accounts[0] = health.Account{Name: "default"} }, degraded, event.ComponentMimecast, event.CauseTokenPending},
		{"one of two accounts without a token", func(w *world) {
			w.facts.Accounts = append(w.facts.Accounts, health.Account{Name: "emea", Error: "401", Refused: true})
		}, degraded, event.ComponentCredentials, "credentials_refused"},
		{"drain", func(w *world) { w.facts.Draining = true }, degraded, event.ComponentProxy, "shutting_down"},
		{"near the bound, for a moment", func(w *world) { w.facts.InFlight, w.facts.MaxRequests = 99, 100 }, event.HealthOK, "", ""},
		{"near the bound", func(w *world) {
			w.facts.InFlight, w.facts.MaxRequests = 99, 100
			w.Health()
			time.Sleep(5 * time.Second)
		}, degraded, event.ComponentProxy, event.CauseNearCapacity},
		{"one long wait", func(w *world) { w.facts.Waiting = []time.Time{time.Now()}; time.Sleep(20 * time.Second) }, event.HealthOK, "", ""},
		{"Mimecast hangs", func(w *world) {
			w.facts.Waiting = []time.Time{time.Now(), time.Now(), time.Now()}
			time.Sleep(10 * time.Second)
		}, degraded, event.ComponentMimecast, event.CauseMimecastStalled},
		{"Mimecast is slow", func(w *world) {
			for range 6 {
				w.Record(event.Outcome{At: time.Now(), Upstream: 6 * time.Second})
			}
		}, degraded, event.ComponentMimecast, event.CauseMimecastSlow},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				test.play(w)
				w.expect(t, test.state, test.component, test.cause)
			})
		})
	}
}

func TestRecoveryShowsWithin5s(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.send(600, time.Minute, event.MimecastError)
		w.expect(t, event.HealthDown, event.ComponentMimecast, "mimecast_error")
		w.send(1, 2*time.Second, "")
		w.expectOK(t)
		h := w.Health()
		if h.Recovered == nil || h.Recovered.Cause != "mimecast_error" || h.Recovered.State != event.HealthDown {
			t.Errorf("recovered: %+v", h.Recovered)
		}
		w.send(10, time.Second, event.UpstreamTLS)
		w.expect(t, event.HealthDown, event.ComponentMimecast, "upstream_tls") // not what was before it
	})
}

func TestNewTokenEndsWhatWasWrongWithTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := &w.facts.Accounts[0]
		a.Valid, a.Failures, a.Error = false, 3, "503"
		w.send(20, time.Minute, event.TokenUnavailable)
		w.expect(t, event.HealthDown, event.ComponentMimecast, "token_unavailable")
		time.Sleep(time.Millisecond)
		*a = health.Account{Name: "default", Valid: true, Fetched: time.Now()}
		w.expectOK(t) // though no request came
	})
}

func TestStateDoesNotFlapUnderRandomErrors(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{1, 5, 20, 100} {
		for seed := range uint64(20) {
			synctest.Test(t, func(t *testing.T) {
				w, random := newWorld(), rand.New(rand.NewPCG(seed, uint64(rate))) //nolint:gosec // chance, not secrets
				for i := range 600 * rate {
					code := event.Code("")
					if random.Float64() < 0.01 {
						code = event.MimecastError
					}
					w.send(1, time.Second/time.Duration(rate), code)
					if i%rate == 0 {
						w.Health()
					}
				}
				if h := w.Health(); len(h.History) > 0 {
					t.Errorf("%d requests/s, seed %d: %+v", rate, seed, h.History)
				}
			})
		}
	}
}
