package health_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// world is a monitor in a synctest bubble, with facts that a test can change.
type world struct {
	*health.Monitor
	facts health.Facts
}

func newWorld() *world {
	w := new(world)
	w.facts.Accounts = []health.Account{{Name: "default", Usable: true, Fetched: time.Now()}}
	w.Monitor = health.New(time.Now(), func() health.Facts { return w.facts })
	return w
}

// responded are the codes of requests that got a response from Mimecast.
var responded = []event.Code{"", event.RequestRefused, event.MimecastUnauthorized, event.MimecastForbidden, event.MimecastRateLimited, event.MimecastError, event.MimecastTruncated}

// record records a request that ends now.
func (w *world) record(o event.Outcome) {
	o.At = time.Now()
	if slices.Contains(responded, o.Code) {
		o.Answered = o.At
	} else {
		o.Local = true
	}
	w.Record(o)
}

// send records n requests, evenly distributed over the given time.
func (w *world) send(n int, within time.Duration, code event.Code) {
	for range n {
		time.Sleep(within / time.Duration(n))
		w.record(event.Outcome{Code: code})
	}
}

func (w *world) expect(t *testing.T, state event.HealthState, component event.Component, cause event.Cause) {
	t.Helper()
	if h := w.Health(); h.State != state || h.Component != component || h.Cause != cause {
		t.Errorf("%s, %q, %q after %s, not %s, %q, %q: %+v", h.State, h.Component, h.Cause, h.Text, state, component, cause, h.Judgment)
	}
}

// wait returns n requests that start waiting for Mimecast now.
func wait(n int) []event.Waiting {
	return slices.Repeat([]event.Waiting{{Account: "default", Since: time.Now()}}, n)
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
		{"one in eight", func(w *world) {
			for range 100 {
				w.send(7, 90*time.Millisecond, "")
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
			a.Failures, a.Error, a.Usable = 1, "503", false
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
		{"drain that cuts most requests", func(w *world) {
			w.facts.Draining = true
			w.send(5, time.Second, "")
			w.send(800, 0, event.ShuttingDown)
		}, degraded, event.ComponentProxy, "shutting_down"},
		{"near the bound, for a moment", func(w *world) { w.facts.InFlight, w.facts.MaxRequests = 99, 100 }, event.HealthOK, "", ""},
		{"near the bound", func(w *world) {
			w.facts.InFlight, w.facts.MaxRequests = 99, 100
			w.Health()
			time.Sleep(5 * time.Second)
		}, degraded, event.ComponentProxy, event.CauseNearCapacity},
		{"one long wait", func(w *world) { w.facts.Waiting = wait(1); time.Sleep(20 * time.Second) }, event.HealthOK, "", ""},
		{"Mimecast hangs", func(w *world) {
			w.facts.Waiting = wait(3)
			time.Sleep(10 * time.Second)
		}, degraded, event.ComponentMimecast, event.CauseMimecastStalled},
		{"one waits very long", func(w *world) { w.facts.Waiting = wait(1); time.Sleep(30 * time.Second) }, degraded, event.ComponentMimecast, event.CauseMimecastStalled},
		{"some wait very long while others get responses", func(w *world) {
			w.facts.Waiting = wait(3)
			w.send(60, time.Minute, "")
		}, event.HealthOK, "", ""},
		{"another account's wait", func(w *world) {
			w.facts.Waiting = []event.Waiting{{Account: "gone", Since: time.Now()}}
			time.Sleep(time.Minute)
		}, event.HealthOK, "", ""},
		{"Mimecast is slow", func(w *world) {
			for range 6 {
				w.record(event.Outcome{Upstream: 6 * time.Second})
			}
		}, degraded, event.ComponentMimecast, event.CauseMimecastSlow},
		{"clients leave, since Mimecast hangs", func(w *world) {
			for range 6 {
				w.record(event.Outcome{Code: event.ClientGone, Waited: 9 * time.Second})
			}
		}, degraded, event.ComponentMimecast, event.CauseMimecastSlow},
		{"clients leave", func(w *world) {
			for range 6 {
				w.record(event.Outcome{Code: event.ClientGone, Waited: time.Second})
			}
		}, degraded, event.ComponentClient, "client_gone"},
		{"the proxy is slow", func(w *world) {
			for range 6 {
				w.record(event.Outcome{Own: time.Second, Upstream: time.Second})
			}
		}, degraded, event.ComponentProxy, event.CauseProxySlow},
		{"failures among slow requests", func(w *world) {
			for range 40 {
				w.record(event.Outcome{Upstream: 6 * time.Second})
			}
			w.send(30, time.Second, event.MimecastError)
			w.send(60, time.Second, "")
		}, degraded, event.ComponentMimecast, "mimecast_error"},
		{"two functions that take turns, of which one fails", func(w *world) {
			for range 10 {
				w.send(1, 30*time.Second, event.MimecastForbidden)
				w.send(1, 30*time.Second, "")
			}
		}, down, event.ComponentCredentials, "mimecast_forbidden"},
		{"overload", func(w *world) { w.send(10, time.Second, event.TooBusy) }, down, event.ComponentProxy, "too_busy"},
		{"one panic", func(w *world) { w.send(1, 0, event.Panic); w.send(9, time.Second, "") }, event.HealthOK, "", ""},
		{"panics", func(w *world) { w.send(10, time.Second, event.Panic) }, down, event.ComponentProxy, "panic"},
		{"an outage that requests of the proxy's own do not hide", func(w *world) {
			w.send(5, time.Second, event.UpstreamUnreachable)
			for range 100 {
				w.Record(event.Outcome{At: time.Now(), Local: true}) // a token request, answered locally
				time.Sleep(100 * time.Millisecond)
			}
		}, down, event.ComponentMimecast, "upstream_unreachable"},
		{"an outage that a batch file does not end", func(w *world) {
			w.send(5, time.Second, event.TokenUnavailable)
			w.facts.Accounts[0] = health.Account{Name: "default", Error: "503", Failures: 1}
			time.Sleep(5 * time.Second)
			w.Record(event.Outcome{At: time.Now()})
		}, down, event.ComponentMimecast, "token_unavailable"},
		{"a 404 ends an outage", func(w *world) {
			w.send(5, time.Second, event.UpstreamUnreachable)
			w.send(3, 3*time.Second, event.RequestRefused)
		}, event.HealthOK, "", ""},
		{"a 403 does not end itself", func(w *world) { w.send(6, 10*time.Second, event.MimecastForbidden) }, down, event.ComponentCredentials, "mimecast_forbidden"},
		{"401 whatever the token", func(w *world) {
			w.send(10, 5*time.Second, event.MimecastUnauthorized)
			time.Sleep(time.Second)
			w.facts.Accounts[0].Fetched = time.Now()
			time.Sleep(3 * time.Second)
		}, down, event.ComponentCredentials, "mimecast_unauthorized"},
		{"a token is replaced", func(w *world) { w.facts.Accounts[0].Usable = false; w.Health(); time.Sleep(time.Second) }, event.HealthOK, "", ""},
		{"the token endpoint hangs", func(w *world) { w.facts.Accounts[0].Usable = false; w.Health(); time.Sleep(2 * time.Second) }, degraded, event.ComponentMimecast, event.CauseTokenPending},
		{"rejected credentials, token still valid", func(w *world) {
			a := &w.facts.Accounts[0]
			a.Failures, a.Error, a.Refused = 1, "401", true
		}, degraded, event.ComponentCredentials, "credentials_refused"},
		{"two accounts in one outage", func(w *world) {
			w.facts.Accounts = append(w.facts.Accounts, health.Account{Name: "emea", Usable: true})
			w.send(9, time.Second, event.UpstreamTLS)
			for range 9 {
				w.record(event.Outcome{Client: "splunk", Account: "emea", Code: event.UpstreamTLS})
			}
			if h := w.Health(); h.Account != "" {
				panic(h.Account)
			}
		}, down, event.ComponentMimecast, "upstream_tls"},
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
		w.expect(t, event.HealthDown, event.ComponentMimecast, "upstream_tls") // the current cause, not the previous one
	})
}

func TestNewTokenEndsWhatWasWrongWithTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := &w.facts.Accounts[0]
		a.Usable, a.Failures, a.Error = false, 3, "503"
		w.send(20, time.Minute, event.TokenUnavailable)
		w.expect(t, event.HealthDown, event.ComponentMimecast, "token_unavailable")
		time.Sleep(time.Millisecond)
		*a = health.Account{Name: "default", Usable: true, Fetched: time.Now()}
		w.expectOK(t) // even without a request
	})
}

// TestOutageOfTheTokenEndpointEndsWithoutARequest revokes a token while the token endpoint
// responds with 503.
func TestOutageOfTheTokenEndpointEndsWithoutARequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := &w.facts.Accounts[0]
		a.Usable, a.Failures, a.Error = false, 1, "503"
		w.send(2, time.Second, event.MimecastUnauthorized)
		w.send(3, time.Second, event.TokenUnavailable)
		w.expect(t, event.HealthDown, event.ComponentMimecast, "token_unavailable")
		time.Sleep(time.Second)
		*a = health.Account{Name: "default", Usable: true, Fetched: time.Now()}
		w.expectOK(t)
	})
}

func TestRecoveryShowsWithin5sThoughFailuresCameBefore(t *testing.T) {
	t.Parallel()
	for _, outage := range []int{20, 200} {
		synctest.Test(t, func(t *testing.T) {
			w, random := newWorld(), rand.New(rand.NewPCG(1, 2)) //nolint:gosec // chance, not secrets
			w.noise(random, 600, 500*time.Millisecond, 0.01)
			for i := range outage { // alternating between two causes
				w.send(1, 500*time.Millisecond, []event.Code{event.UpstreamReset, event.UpstreamUnreachable}[i%2])
			}
			w.expect(t, event.HealthDown, event.ComponentMimecast, w.Health().Cause)
			w.send(9, 4500*time.Millisecond, "")
			w.expectOK(t)
		})
	}
}

// noise records requests, of which a share fails at random.
func (w *world) noise(random *rand.Rand, n int, every time.Duration, share float64) {
	for range n {
		code := event.Code("")
		if random.Float64() < share {
			code = event.MimecastError
		}
		w.send(1, every, code)
		w.Health()
	}
}

func TestStatesOfAccountsAndClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.facts.Accounts = append(w.facts.Accounts, health.Account{Name: "emea", Usable: true, Fetched: time.Now()})
		w.facts.Clients = []string{"good", "bad"}
		for range 100 {
			w.record(event.Outcome{Client: "good"})
			w.record(event.Outcome{Client: "bad", Account: "emea", Code: event.UpstreamTimeout})
			w.record(event.Outcome{Client: "good"})
			w.record(event.Outcome{Client: "good"})
		}
		h := w.Health()
		if h.State != event.HealthDegraded || h.Account != "emea" || len(h.Accounts) != 2 || h.Accounts[1].State != event.HealthDown || h.Accounts[0].State != event.HealthOK {
			t.Errorf("%+v", h)
		}
		if len(h.Clients) != 2 || h.Clients[0].Name != "bad" || h.Clients[0].State != event.HealthDown || h.Clients[1].State != event.HealthOK {
			t.Errorf("%+v", h.Clients)
		}
		w.facts.Accounts, w.facts.Clients = w.facts.Accounts[:1], nil
		w.expectOK(t)
		if h := w.Health(); len(h.Clients) != 0 || len(h.Accounts) != 1 {
			t.Errorf("%+v", h)
		}
	})
}

// TestRareFailuresNeverMakeItDown has one failure in each of many idle hours, with any
// code.
func TestRareFailuresNeverMakeItDown(t *testing.T) {
	t.Parallel()
	for _, k := range event.Kinds() {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			for range 10 {
				time.Sleep(time.Hour)
				w.send(1, 0, k.Code)
				w.expectOK(t)
				time.Sleep(time.Minute)
				w.expectOK(t)
			}
			if h := w.Health(); len(h.History) > 0 {
				t.Errorf("%s: %+v", k.Code, h.History)
			}
		})
	}
}

func TestRunReportsEachChangeOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, stop := context.WithCancel(t.Context())
		var states []event.HealthState
		ended := make(chan bool)
		go func() {
			defer close(ended)
			w.Run(ctx, func(h event.Health) { states = append(states, h.State) })
		}()
		for range 2 {
			w.send(30, 10*time.Second, event.MimecastError)
			w.send(30, 3*time.Minute, "")
		}
		stop()
		<-ended
		if !slices.Equal(states, []event.HealthState{"down", "ok", "degraded", "down", "ok"}) {
			t.Errorf("%v", states)
		}
		if h := w.Health(); len(h.History) != len(states) || h.Recovered == nil || h.Recovered.State != event.HealthDown || w.State() != event.HealthOK {
			t.Errorf("%+v", h)
		}
	})
}

// TestStartIsNoFault checks a proxy before and after it fetches its first token.
func TestStartIsNoFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		token := w.facts.Accounts[0]
		w.facts.Accounts[0] = health.Account{Name: "default"}
		w.expect(t, event.HealthDegraded, event.ComponentMimecast, event.CauseTokenPending)
		w.expect(t, event.HealthDegraded, event.ComponentMimecast, event.CauseTokenPending)
		w.facts.Accounts[0] = token
		w.expectOK(t)
		if h := w.Health(); h.Recovered != nil || len(h.History) != 1 {
			t.Errorf("%+v", h)
		}
		w.facts.Accounts[0] = health.Account{Name: "default", Error: "503", Failures: 1}
		w.expect(t, event.HealthDown, event.ComponentMimecast, "token_unavailable")
	})
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for i := range 200 {
			w.facts.Draining = i%2 == 0
			w.Health()
		}
		if n := len(w.Health().History); n != 50 {
			t.Errorf("%d changes", n)
		}
	})
}

func TestNearTheBoundDoesNotFlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.facts.MaxRequests = 100
		for i := range 60 {
			w.facts.InFlight = 85 + i%12
			w.Health()
			time.Sleep(time.Second)
		}
		w.facts.InFlight = 10
		w.expectOK(t)
		if h := w.Health(); len(h.History) != 2 {
			t.Errorf("%+v", h.History)
		}
	})
}

func TestStateDoesNotFlapUnderRandomErrors(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.01, 0.03} {
		for _, every := range []time.Duration{time.Minute, 10 * time.Second, time.Second, 200 * time.Millisecond, 20 * time.Millisecond} {
			for seed := range runs(6) {
				synctest.Test(t, func(t *testing.T) {
					w, random := newWorld(), rand.New(rand.NewPCG(seed, uint64(every))) //nolint:gosec // chance, not secrets
					for i := range int(10 * time.Minute / every) {
						code := event.Code("")
						if random.Float64() < share {
							code = event.MimecastError
						}
						w.send(1, every, code)
						if every >= time.Second || i%int(time.Second/every) == 0 {
							w.Health()
						}
					}
					if h := w.Health(); len(h.History) > 0 {
						t.Errorf("%v, every %v, seed %d: %+v", share, every, seed, h.History)
					}
				})
			}
		}
	}
}

// runs returns the number of random runs: one with -short.
func runs(n uint64) uint64 {
	if testing.Short() {
		return 1
	}
	return n
}

// TestStateDoesNotFlapForManyClients has 20 clients of three accounts that send occasional
// bursts. 1 % of the requests and token fetches fail.
func TestStateDoesNotFlapForManyClients(t *testing.T) {
	t.Parallel()
	for seed := range runs(6) {
		synctest.Test(t, func(t *testing.T) {
			w, random := newWorld(), rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // chance, not secrets
			names := []string{"default", "emea", "apac"}
			w.facts.Accounts = nil
			for _, name := range names {
				w.facts.Accounts = append(w.facts.Accounts, health.Account{Name: name, Usable: true, Fetched: time.Now()})
			}
			for i := range 20 {
				w.facts.Clients = append(w.facts.Clients, string(rune('a'+i)))
			}
			for range 600 {
				time.Sleep(time.Second)
				for i, client := range w.facts.Clients {
					if random.IntN(10) > 0 {
						continue
					}
					for range 1 + random.IntN(30) {
						code := event.Code("")
						if random.Float64() < 0.01 {
							code = []event.Code{event.MimecastError, event.UpstreamReset, event.MimecastForbidden, event.RequestRefused}[random.IntN(4)]
						}
						w.record(event.Outcome{Client: client, Account: names[i%3], Code: code})
					}
				}
				a := &w.facts.Accounts[random.IntN(3)]
				if a.Failures > 0 || random.Float64() < 0.01 {
					a.Failures, a.Error = 1-a.Failures, "503"
				}
				w.Health()
			}
			if h := w.Health(); len(h.History) > 0 {
				t.Errorf("seed %d: %+v", seed, h.History)
			}
		})
	}
}

// TestLastingFaultDoesNotFlap has faults that do not affect all requests.
func TestLastingFaultDoesNotFlap(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.1, 0.5, 0.9} {
		for _, every := range []time.Duration{10 * time.Second, time.Second, 100 * time.Millisecond} {
			changes, most := 0, 0
			for seed := range runs(3) {
				synctest.Test(t, func(t *testing.T) {
					w, random := newWorld(), rand.New(rand.NewPCG(seed, uint64(every))) //nolint:gosec // chance, not secrets
					w.noise(random, int(10*time.Minute/every), every, share)
					n := len(w.Health().History)
					changes, most = changes+n, max(most, n)
				})
			}
			t.Logf("%v, every %v: %d changes in 30 minutes, at most %d in 10", share, every, changes, most)
			if most > 10 {
				t.Errorf("%v, every %v", share, every)
			}
		}
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	m := health.New(time.Now(), func() health.Facts { return health.Facts{} })
	o := event.Outcome{At: time.Now(), Client: "splunk", Account: "emea", Code: event.MimecastError}
	m.Record(o)
	if n := testing.AllocsPerRun(100, func() { m.Record(o) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	m := health.New(time.Now(), func() health.Facts { return health.Facts{} })
	for _, code := range []event.Code{"", event.MimecastError} {
		b.Run("code "+string(code), func(b *testing.B) {
			now := time.Now()
			b.ReportAllocs()
			for range b.N {
				m.Record(event.Outcome{At: now, Client: "splunk", Account: "emea", Code: code, Answered: now, Own: time.Millisecond, Upstream: time.Millisecond})
			}
		})
	}
}
