package quota_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/account"
	"mimecast-proxy/event"
	"mimecast-proxy/mimecast"
	"mimecast-proxy/problem"
	"mimecast-proxy/quota"
)

// answers is an upstream that responds as a test defines.
type answers func(*http.Request) (status int, header http.Header)

func (a answers) RoundTrip(req *http.Request) (*http.Response, error) {
	status, h := a(req)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

func stating(limit, remaining, resetMS any) http.Header {
	h := http.Header{}
	h.Set("X-RateLimit-Limit", fmt.Sprint(limit))
	h.Set("X-RateLimit-Remaining", fmt.Sprint(remaining))
	h.Set("X-RateLimit-Reset", fmt.Sprint(resetMS))
	return h
}

func ask(ctx context.Context, next http.RoundTripper, a *account.Account, client, path string) (status int, p *problem.Problem, err error) {
	req, err := http.NewRequestWithContext(account.NewContext(ctx, a, client), "GET", "https://mimecast.example", nil)
	if err != nil {
		return 0, nil, err
	}
	req.URL = &url.URL{Scheme: "https", Host: host.Host, Opaque: path}
	res, err := next.RoundTrip(req)
	if errors.As(err, &p) {
		return p.Code.Status(), p, nil
	}
	if err != nil {
		return 0, nil, err
	}
	return res.StatusCode, nil, nil
}

// paced counts the outcomes of pacing.
type paced map[event.PaceOutcome]int

func (p paced) trace() quota.Trace {
	return quota.Trace{Paced: func(_ context.Context, function string, _ time.Duration, o event.PaceOutcome) {
		if function != siem {
			panic(function)
		}
		p[o]++
	}}
}

func TestHopelessCallIsRejectedAtOnceAndToldWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes, calls := paced{}, 0
		m := quota.New(quota.Options{Wait: 10 * time.Second, Pace: quota.On, Trace: outcomes.trace()})
		next := m.Wrap(answers(func(*http.Request) (int, http.Header) { calls++; return 200, stating(50, 0, 60_000) }))
		if status, _, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil {
			t.Fatal(status, err)
		}
		began := time.Now()
		status, p, err := ask(t.Context(), next, nil, "c", siem)
		if err != nil || status != 503 || p.Code != event.TooBusy || p.RetryAfter.Round(time.Second) != time.Minute || time.Since(began) != 0 {
			t.Errorf("%d %+v %v after %v", status, p, err, time.Since(began))
		}
		if len(p.Detail) > 140 {
			t.Errorf("%d characters: %s", len(p.Detail), p.Detail)
		}
		if calls != 1 || outcomes[event.PaceTooLong] != 1 {
			t.Errorf("%d calls, %v", calls, outcomes)
		}
		time.Sleep(55 * time.Second) // close to the reset
		if status, _, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil || time.Since(began).Round(10*time.Millisecond) != time.Minute {
			t.Errorf("%d %v after %v", status, err, time.Since(began))
		}
	})
}

func TestCallThatIsOvertakenIsRejectedWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outcomes := paced{}
		g := &gateway{limit: 10, window: time.Minute, prefix: "X-RateLimit-"}
		m := quota.New(quota.Options{Wait: 10 * time.Second, Pace: quota.On, Trace: outcomes.trace()})
		next := m.Wrap(g)
		for range 3 { // more than the burst
			_, _, _ = ask(t.Context(), next, nil, "heavy", siem)
		}
		done := make(chan time.Duration)
		began := time.Now()
		go func() {
			status, p, err := ask(t.Context(), next, nil, "heavy", siem)
			if status != 503 || p == nil || p.RetryAfter < time.Second || err != nil {
				t.Error(status, p, err)
			}
			done <- time.Since(began)
		}()
		synctest.Wait()
		for i := range 6 { // other clients' calls go first
			if status, _, err := ask(t.Context(), next, nil, fmt.Sprint("light-", i), siem); status != 200 || err != nil {
				t.Error(status, err)
			}
		}
		if took := <-done; took != 10*time.Second {
			t.Errorf("after %v", took)
		}
		if outcomes[event.PaceTooLong] != 1 {
			t.Error(outcomes)
		}
	})
}

func TestObserveAndAWaitOfZeroNeverWait(t *testing.T) {
	for _, o := range []quota.Options{{Wait: time.Minute, Pace: quota.Observe}, {Pace: quota.On}} {
		synctest.Test(t, func(t *testing.T) {
			outcomes := paced{}
			o.Trace = outcomes.trace()
			m := quota.New(o)
			next := m.Wrap(&gateway{limit: 50, window: time.Minute, prefix: "X-RateLimit-"})
			began := time.Now()
			for range 40 {
				if status, _, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil {
					t.Fatal(status, err)
				}
			}
			if time.Since(began) != 0 {
				t.Errorf("they waited %v", time.Since(began))
			}
			q := m.Snapshot()[0]
			if n := outcomes[event.PaceWouldWait]; n < 25 || len(outcomes) != 1 || q.Paced[event.PaceWouldWait] != uint64(n) || q.WaitedMS <= 0 {
				t.Errorf("%v, %+v", outcomes, q)
			}
		})
	}
}

func TestCallLeavesItsPlaceWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := quota.New(quota.Options{Wait: time.Hour, Pace: quota.On})
		next := m.Wrap(answers(func(*http.Request) (int, http.Header) { return 200, stating(50, 0, 60_000) }))
		_, _, _ = ask(t.Context(), next, nil, "c", siem)
		gone := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		for range 10 {
			go func() { _, _, err := ask(ctx, next, nil, "c", siem); done <- err }()
		}
		synctest.Wait()
		if n := m.Snapshot()[0].Waiting; n != 10 {
			t.Errorf("%d wait", n)
		}
		began := time.Now()
		cancel(gone)
		for range 10 {
			if err := <-done; !errors.Is(err, gone) {
				t.Error(err)
			}
		}
		if n := m.Snapshot()[0].Waiting; n != 0 || time.Since(began) != 0 {
			t.Errorf("%d wait after %v", n, time.Since(began))
		}
	})
}

func TestPlacesToWaitForATurnAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := quota.New(quota.Options{Wait: 10 * time.Hour, Pace: quota.On})
		next := m.Wrap(&gateway{limit: 10, window: time.Minute, prefix: "X-RateLimit-"})
		ctx, cancel := context.WithCancel(t.Context())
		for range 3 {
			_, _, _ = ask(ctx, next, nil, "greedy", siem)
		}
		done := make(chan int, 200)
		for range 100 {
			go func() { status, _, _ := ask(ctx, next, nil, "greedy", siem); done <- status }()
			synctest.Wait()
		}
		if n := m.Snapshot()[0].Waiting; n != 64 {
			t.Errorf("%d wait", n)
		}
		for range 36 {
			if status := <-done; status != 503 {
				t.Error(status)
			}
		}
		cancel()
		for range 64 {
			<-done
		}
	})
}

func TestForgottenAccountHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := quota.New(quota.Options{Wait: time.Hour, Pace: quota.On})
		next := m.Wrap(answers(func(*http.Request) (int, http.Header) { return 200, stating(50, 0, 60_000) }))
		a, b := &account.Account{Name: "a", BaseURL: host}, &account.Account{Name: "b", BaseURL: host}
		for _, account := range []*account.Account{a, b} {
			_, _, _ = ask(t.Context(), next, account, "c", siem)
		}
		done := make(chan int)
		go func() { status, _, _ := ask(t.Context(), next, a, "c", siem); done <- status }()
		synctest.Wait()
		began := time.Now()
		m.Forget(a)
		if status := <-done; status != 200 || time.Since(began) != 0 {
			t.Errorf("%d after %v", status, time.Since(began))
		}
		synctest.Wait()
		if quotas := m.Snapshot(); !slices.ContainsFunc(quotas, func(q event.Quota) bool { return q.Account == "b" }) {
			t.Errorf("%+v", quotas)
		}
	})
}

func TestHeadersThatCannotBePacedByAreNot(t *testing.T) {
	for name, h := range map[string]http.Header{
		"none":                 {},
		"no reset":             {"X-Ratelimit-Limit": {"50"}, "X-Ratelimit-Remaining": {"0"}},
		"no limit":             {"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"60000"}},
		"nothing but a reset":  {"X-Ratelimit-Reset": {"60000"}},
		"no calls at all":      stating(0, 0, 60_000),
		"negative":             stating(50, -1, 60_000),
		"a negative reset":     stating(50, 0, -60_000),
		"over already":         stating(50, 0, 0),
		"far away":             stating(50, 0, 999_999_999_999_999),
		"huge":                 stating(uint64(math.MaxUint64), 0, 60_000),
		"not a number":         stating("NaN", "NaN", "NaN"),
		"infinite":             stating("+Inf", 0, "Inf"),
		"of another kind":      stating("fifty", 0, "1m"),
		"a date in place of s": stating(50, 0, time.Now().UnixMilli()),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := quota.New(quota.Options{Wait: time.Hour, Pace: quota.On})
				next := m.Wrap(answers(func(*http.Request) (int, http.Header) { return 200, h }))
				began := time.Now()
				for range 20 {
					if status, _, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil {
						t.Fatal(status, err)
					}
				}
				if time.Since(began) != 0 || len(m.Snapshot()) != 0 {
					t.Errorf("after %v: %+v", time.Since(began), m.Snapshot())
				}
			})
		})
	}
}

func TestWhatChangesIsFollowed(t *testing.T) {
	for name, states := range map[string][]http.Header{
		"more are left":           {stating(50, 1, 60_000), stating(50, 40, 60_000)},
		"more left than allowed":  {stating(50, 1, 60_000), stating(50, 1_000_000, 60_000)},
		"a higher limit":          {stating(50, 1, 60_000), stating(5000, 4900, 60_000)},
		"an earlier reset":        {stating(50, 1, 3_600_000), stating(50, 50, 60_000)},
		"a later reset":           {stating(50, 1, 1000), stating(50, 49, 60_000)},
		"no headers at last":      {stating(50, 1, 1000), {}},
		"a reset that comes soon": {stating(50, 1, 60_000), stating(50, 49, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := 0
				m := quota.New(quota.Options{Wait: time.Hour, Pace: quota.On})
				next := m.Wrap(answers(func(*http.Request) (int, http.Header) {
					h := states[min(i, len(states)-1)]
					i++
					return 200, h
				}))
				_, _, _ = ask(t.Context(), next, nil, "c", siem)
				_, _, _ = ask(t.Context(), next, nil, "newcomer", siem) // gets the changed quota
				began := time.Now()
				for range 3 {
					if status, _, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil {
						t.Fatal(status, err)
					}
				}
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("they waited %v", d)
				}
			})
		})
	}
}

func TestSnapshotSaysWhoUsedWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{limit: 10, window: time.Minute, prefix: "X-Rate-Limit-"}
		m := quota.New(quota.Options{})
		next := m.Wrap(g)
		a := &account.Account{Name: "emea", BaseURL: host}
		for client, n := range map[string]int{"splunk": 7, "xsoar": 4} {
			for range n {
				_, _, _ = ask(t.Context(), next, a, client, siem)
			}
		}
		_, _, _ = ask(t.Context(), next, a, "splunk", "/made/up")
		list := m.Snapshot()
		if len(list) != 2 {
			t.Fatalf("%+v", list)
		}
		if list[0].Path != "/made/up" || list[0].Function != mimecast.OtherFunction || list[0].Calls != 1 || list[0].Others != 0 {
			t.Errorf("%+v", list[0])
		}
		q := list[1]
		if q.Account != "emea" || q.Function != siem || q.Limit != 10 || q.Remaining != 0 || q.Calls != 11 || q.Limited != 1 || q.Others != 0 || len(q.Clients) != 2 || q.Clients[0].Client != "splunk" || q.Clients[0].Calls != 7 {
			t.Errorf("%+v", q)
		}
		if d := time.Until(q.Reset).Round(time.Second); d != time.Minute {
			t.Errorf("the reset is in %v", d)
		}
		g.mu.Lock()
		g.calls = g.calls[:0] // as in a new window, in which others used some quota
		for range 5 {
			g.calls = append(g.calls, time.Now())
		}
		g.mu.Unlock()
		time.Sleep(3 * time.Minute)
		if q := m.Snapshot()[1]; q.Calls != 0 || len(q.Clients) != 0 || !q.Reset.IsZero() {
			t.Errorf("after the reset: %+v", q)
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	m := quota.New(quota.Options{})
	next := m.Wrap(answers(func(*http.Request) (int, http.Header) { return 200, stating(50, 49, 60_000) }))
	for i := range 1000 {
		_, _, _ = ask(t.Context(), next, nil, "c", "/siem/v1/events/"+strconv.Itoa(i))
		_, _, _ = ask(t.Context(), next, nil, "client-"+strconv.Itoa(i), siem)
	}
	_, _, _ = ask(t.Context(), next, nil, "c", "/"+strings.Repeat("x", 10_000))
	list := m.Snapshot()
	if len(list) != 256 {
		t.Errorf("%d functions", len(list))
	}
	i := slices.IndexFunc(list, func(q event.Quota) bool { return q.Path == siem })
	if i < 0 {
		t.Fatal("the function that is called most is gone")
	}
	if q := list[i]; len(q.Clients) != 10 || q.Calls != 1000 || q.Clients[0].Client != "(other)" {
		t.Errorf("%+v", q)
	}
}

// failing is an upstream that fails while err is set.
type failing struct {
	gateway
	err    error
	sends  bool // whether it sends the request before failing
	counts bool // whether a failed call uses quota
	delay  time.Duration
}

func (f *failing) RoundTrip(req *http.Request) (*http.Response, error) {
	if f.err == nil || f.sends {
		if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
			trace.WroteHeaders()
		}
	}
	if f.err == nil {
		return f.gateway.RoundTrip(req)
	}
	if f.counts {
		f.serve()
	}
	return nil, cmp.Or(sleep(req.Context(), f.delay), f.err)
}

func TestCallThatWasNotSentUsesNoQuota(t *testing.T) {
	for _, c := range []struct {
		code  event.Code
		sends bool
	}{
		{event.UpstreamUnreachable, false}, {event.UpstreamTLS, false}, {event.TokenUnavailable, false},
		{event.CredentialsRefused, false}, {event.ShuttingDown, false},
		{event.UpstreamUnreachable, true}, // Mimecast closed the connection before it processed the request
	} {
		t.Run(fmt.Sprint(c.code, c.sends), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := &failing{gateway: gateway{limit: 10, window: time.Hour, prefix: "X-RateLimit-"}, sends: c.sends}
				m := quota.New(quota.Options{Wait: time.Second, Pace: quota.On})
				next := m.Wrap(up)
				_, _, _ = ask(t.Context(), next, nil, "c", siem)
				up.err = problem.New(c.code, "an outage")
				for i := range 3000 {
					if status, p, err := ask(t.Context(), next, nil, "c", siem); err != nil || p == nil || p.Code != c.code {
						t.Fatal(i, status, p, err)
					}
				}
				if q := m.Snapshot()[0]; q.Calls != 1 || q.Others != 0 {
					t.Errorf("%+v", q)
				}
				up.err = nil
				if status, p, err := ask(t.Context(), next, nil, "c", siem); status != 200 {
					t.Error(status, p, err)
				}
				if q := m.Snapshot()[0]; q.Calls != 2 || q.Remaining != 8 || q.Others != 0 {
					t.Errorf("%+v", q)
				}
			})
		})
	}
}

func TestCallWhoseClientLeftUsesQuotaOnlyIfItWasSent(t *testing.T) {
	for _, sends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up := &failing{gateway: gateway{limit: 10, window: time.Hour, prefix: "X-RateLimit-"}, sends: sends}
			m := quota.New(quota.Options{Wait: time.Second, Pace: quota.On})
			next := m.Wrap(up)
			_, _, _ = ask(t.Context(), next, nil, "c", siem)
			up.err, up.delay = errors.New("not reached"), time.Minute
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(problem.New(event.ShuttingDown, "is cut")) })
			_, _, _ = ask(ctx, next, nil, "c", siem)
			if q := m.Snapshot()[0]; q.Calls == 2 != sends {
				t.Errorf("sent: %v, %+v", sends, q)
			}
		})
	}
}

func TestCallsThatFailedDoNotBlockAFunction(t *testing.T) {
	for _, counts := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up := &failing{gateway: gateway{limit: 3, window: time.Hour, prefix: "X-RateLimit-"}, sends: true, counts: counts}
			m := quota.New(quota.Options{Wait: 10 * time.Second, Pace: quota.On})
			next := m.Wrap(up)
			_, _, _ = ask(t.Context(), next, nil, "a", siem)
			up.err, up.delay = problem.New(event.UpstreamReset, "an outage"), time.Second
			for _, client := range []string{"b", "c"} {
				_, _, _ = ask(t.Context(), next, nil, client, siem) // Mimecast may have counted these calls
			}
			// Each waits for the previous one's outcome: only one is in flight.
			done := make(chan time.Duration)
			began := time.Now()
			for range 3 {
				go func() {
					if _, p, err := ask(t.Context(), next, nil, "a", siem); p == nil || p.Code != event.UpstreamReset {
						t.Error(p, err)
					}
					done <- time.Since(began)
				}()
			}
			for i := range 3 {
				if took := <-done; took != time.Duration(i+1)*time.Second {
					t.Errorf("the outcome of call %d came after %v", i, took)
				}
			}
			up.err = nil
			status, _, _ := ask(t.Context(), next, nil, "a", siem)
			if counts && status == 200 || !counts && status != 200 {
				t.Errorf("after the outage: %d", status)
			}
			if status, p, _ := ask(t.Context(), next, nil, "a", siem); counts && (status != 503 || p.RetryAfter < 59*time.Minute) {
				t.Errorf("after Mimecast said that nothing is left: %d %v", status, p)
			}
		})
	}
}

func TestResetThatIsHardToBelieveIsProbed(t *testing.T) {
	for name, c := range map[string]struct{ bogus, next http.Header }{
		"nothing left":   {stating(100, 0, 86_400_000), stating(100, 90, 60_000)},
		"little left":    {stating(100, 2, 86_400_000), stating(100, 90, 60_000)},
		"another limit":  {stating(9, 0, 3_700_000), stating(100, 90, 60_000)},
		"no quota later": {stating(100, 0, 86_400_000), http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bogus, calls := true, 0
				m := quota.New(quota.Options{Wait: 90 * time.Second, Pace: quota.On})
				next := m.Wrap(answers(func(*http.Request) (int, http.Header) {
					calls++
					if bogus {
						return 200, c.bogus
					}
					return 200, c.next
				}))
				for range 5 { // while the window is not corrected
					_, _, _ = ask(t.Context(), next, nil, "c", siem)
				}
				before, began := calls, time.Now()
				done := make(chan int, 5)
				for range 5 {
					go func() {
						status, p, _ := ask(t.Context(), next, nil, "c", siem)
						if p != nil && (p.RetryAfter < time.Second || p.RetryAfter > time.Hour) {
							t.Error(p, p.RetryAfter)
						}
						done <- status
					}()
				}
				sent := 0
				for range cap(done) {
					if <-done == 200 {
						sent++
					}
				}
				if sent != calls-before || sent < 1 || sent > 2 || time.Since(began) > 90*time.Second {
					t.Errorf("%d calls were sent within %v", sent, time.Since(began))
				}
				bogus = false
				time.Sleep(time.Minute)
				began = time.Now()
				for range 10 {
					if status, p, err := ask(t.Context(), next, nil, "c", siem); status != 200 || err != nil {
						t.Fatal(p, err)
					}
				}
				if d := time.Until(m.Snapshot()[0].Reset); time.Since(began) != 0 || d > time.Minute {
					t.Errorf("after %v, the reset is in %v", time.Since(began), d)
				}
				time.Sleep(90 * time.Second) // the next window is as short
				if d := time.Until(m.Snapshot()[0].Reset); d > time.Minute {
					t.Errorf("the next reset is in %v", d)
				}
			})
		})
	}
}

func TestSpellingOfAPathIsNoNewFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := quota.New(quota.Options{Wait: time.Second, Pace: quota.On})
		g := &gateway{limit: 20, window: time.Minute, prefix: "X-RateLimit-"}
		next := m.Wrap(g)
		for i := range 100 {
			spelling := siem
			if at := 1 + i%len("siem"); i > 0 {
				spelling = fmt.Sprintf("%s%%%02x%s%s", siem[:at], siem[at], siem[at+1:], strings.Repeat("/", i/4))
			}
			_, _, _ = ask(t.Context(), next, nil, "c", spelling)
		}
		if list := m.Snapshot(); len(list) != 1 || list[0].Path != siem || list[0].Function != siem {
			t.Errorf("%+v", list)
		}
		if g.served > 10 || g.limited != 0 {
			t.Errorf("%d calls, %d with 429", g.served, g.limited)
		}
	})
}

func TestFirstResponseAllowsABurstAndCountsA429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for status, h := range map[int]http.Header{200: stating(50, 49, 60_000), 429: stating(50, 0, 60_000)} {
			m := quota.New(quota.Options{Wait: time.Second, Pace: quota.On})
			next := m.Wrap(answers(func(*http.Request) (int, http.Header) { return status, h }))
			if got, _, err := ask(t.Context(), next, nil, "c", siem); got != status || err != nil {
				t.Error(got, err)
			}
			if q := m.Snapshot()[0]; q.Calls != 1 || int(q.Limited) != status/429 {
				t.Errorf("%+v", q)
			}
			began := time.Now()
			if got, _, err := ask(t.Context(), next, nil, "c", siem); err != nil || time.Since(began) != 0 || (got == 200) != (status == 200) {
				t.Errorf("after a %d: %d %v after %v", status, got, err, time.Since(began))
			}
		}
	})
}

func TestHeldCallIsPartOfTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{limit: 5, window: time.Minute, latency: time.Millisecond, prefix: "X-RateLimit-"}
		for range 5 {
			g.serve() // calls of other clients of the account
		}
		m := quota.New(quota.Options{Wait: 2 * time.Minute, Pace: quota.On})
		began := time.Now()
		if status, _, err := ask(t.Context(), m.Wrap(g), nil, "c", siem); status != 200 || err != nil || time.Since(began).Round(time.Second) != time.Minute {
			t.Errorf("%d %v after %v", status, err, time.Since(began))
		}
		if q := m.Snapshot()[0]; q.Calls != 1 || q.Limited != 0 || q.Remaining != 4 {
			t.Errorf("%+v", q)
		}
	})
}

// A function without quota headers must cost almost nothing.
func BenchmarkLayer(b *testing.B) {
	for name, h := range map[string]http.Header{
		"without quota": {"Content-Type": {"application/json"}},
		"with quota":    stating(1_000_000_000, 999_999_000, 60_000),
	} {
		for pace, of := range map[string]quota.Pace{"off": quota.Off, "on": quota.On} {
			b.Run(name+", pace "+pace, func(b *testing.B) {
				res := &http.Response{StatusCode: 200, Header: h, Body: http.NoBody}
				upstream := roundTripper(func(*http.Request) (*http.Response, error) { return res, nil })
				next := quota.New(quota.Options{Wait: time.Minute, Pace: of}).Wrap(upstream)
				req, err := http.NewRequestWithContext(account.NewContext(b.Context(), nil, "c"), "GET", "https://mimecast.example", nil)
				if err != nil {
					b.Fatal(err)
				}
				req.URL.Opaque = siem
				b.ReportAllocs()
				for b.Loop() {
					if _, err := next.RoundTrip(req); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// FuzzModel checks that every call ends in time after any sequence of responses.
func FuzzModel(f *testing.F) {
	f.Add([]byte{50, 49, 60, 50, 48, 59, 50, 0, 1})
	f.Add([]byte{0, 255, 255, 255, 0, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 3 || len(script) > 300 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			i := 0
			m := quota.New(quota.Options{Wait: 30 * time.Second, Pace: quota.On})
			next := m.Wrap(answers(func(*http.Request) (int, http.Header) {
				at := i % (len(script) - 2)
				i += 3
				limit, remaining, reset := int(script[at]), int(script[at+1]), int(script[at+2])
				if limit == 255 {
					return 200, http.Header{}
				}
				return 200 + 229*(reset%2), stating(limit, remaining-1, reset*reset*10)
			}))
			for j := range 30 {
				began := time.Now()
				_, _, err := ask(t.Context(), next, nil, fmt.Sprint(j%3), siem)
				if took := time.Since(began); err != nil || took > 30*time.Second {
					t.Errorf("%v after %v", err, took)
				}
				for _, q := range m.Snapshot() {
					if q.Calls > 100_000 || q.Others > math.MaxInt32 {
						t.Errorf("%+v", q)
					}
				}
			}
		})
	})
}
