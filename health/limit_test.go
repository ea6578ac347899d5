package health_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// TestClientOverItsOwnLimitIsItsOwnFault has a client that exceeds its max_requests.
func TestClientOverItsOwnLimitIsItsOwnFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.facts.Clients = []string{"splunk"}
		flood := func() {
			for range 500 {
				w.record(event.Outcome{Client: "splunk", Code: event.TooBusy, LimitOwner: event.ComponentClient})
			}
		}
		flood()
		w.expect(t, event.HealthDegraded, event.ComponentClient, "too_busy")
		w.send(2, time.Second, "")
		flood()
		w.expectOK(t) // the others' requests show that the proxy is healthy
		w.send(20, time.Second, event.TooBusy)
		w.expect(t, event.HealthDown, event.ComponentProxy, "too_busy")
	})
}

// TestQuotaInUseIsNoFaultOfTheProxy has calls that would wait too long for the quota.
func TestQuotaInUseIsNoFaultOfTheProxy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 20 {
			w.record(event.Outcome{Code: event.TooBusy, LimitOwner: event.ComponentMimecast})
		}
		w.expect(t, event.HealthDown, event.ComponentMimecast, "too_busy")
		time.Sleep(3 * time.Second)
		w.send(20, time.Second, "")
		w.expectOK(t)
	})
}

func TestShareOfAnAccountWithoutAToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.send(80, time.Second, "")
		token := w.facts.Accounts[0]
		w.facts.Accounts[0] = health.Account{Name: "default", Failures: 1, Error: "the token endpoint responded with status 503"}
		w.send(1, time.Second, event.TokenUnavailable)
		h := w.Health()
		if h.AffectedShare != 1 || h.Accounts[0].AffectedShare != 1 || h.Failed != 1 || h.Advice != "The token endpoint responded with status 503. The proxy keeps trying." {
			t.Errorf("%+v", h)
		}
		w.facts.Accounts = append(w.facts.Accounts, health.Account{Name: "emea", Usable: true, Fetched: time.Now()})
		for range 81 {
			w.record(event.Outcome{Account: "emea"})
		}
		if h := w.Health(); h.AffectedShare != 0.5 || h.Account != "default" {
			t.Errorf("%+v", h)
		}
		token.Fetched = time.Now()
		w.facts.Accounts[0] = token
		if h := w.Health(); h.AffectedShare != 0 || h.State != event.HealthOK {
			t.Errorf("%+v", h)
		}
	})
}

// TestSilenceIsNoRecovery has an outage that is visible only in the last 10 s, and no
// requests after it.
func TestSilenceIsNoRecovery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.send(1000, 30*time.Second, "")
		time.Sleep(15 * time.Second)
		for _, c := range strings.Repeat("x", 20) + "...x..x..x" { // the last 10 have fewer failures than those before
			w.send(1, 150*time.Millisecond, map[rune]event.Code{'x': event.MimecastError}[c])
		}
		for range 40 {
			w.expect(t, event.HealthDown, event.ComponentMimecast, "mimecast_error")
			time.Sleep(time.Second)
		}
		if h := w.Health(); len(h.History) != 1 {
			t.Errorf("%+v", h.History)
		}
	})
}
