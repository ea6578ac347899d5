package simulator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"mimecast-proxy/simulator"
)

// fifty returns 50 applications in addition to the first one.
func fifty() (all []simulator.Application) {
	for i := range 50 {
		all = append(all, simulator.Application{ClientID: fmt.Sprintf("app-%02d", i), ClientSecret: fmt.Sprintf("secret-%02d", i)})
	}
	return all
}

// tokens fetches a token for each application.
func (r *rig) tokens(apps []simulator.Application) (tokens []string) {
	r.t.Helper()
	for _, a := range apps {
		status, answer := r.fetch(form(a.ClientID, a.ClientSecret))
		if status != 200 {
			r.t.Fatalf("%s: %d %v", a.ClientID, status, answer)
		}
		tokens = append(tokens, answer["access_token"].(string))
	}
	return tokens
}

func (r *rig) as(token string, header ...string) (status int, took time.Duration) {
	r.t.Helper()
	began := time.Now()
	res, _ := r.get("/identity/whoami", append(header, "Authorization", "Bearer "+token)...)
	return res.StatusCode, time.Since(began)
}

func TestEachApplicationHasItsTokensAndQuota(t *testing.T) {
	apps := fifty()
	r := start(t, simulator.Options{Applications: apps, Quotas: map[string]simulator.Quota{"/identity/whoami": {Calls: 2, Window: time.Hour}}})
	if status, answer := r.fetch(form(apps[0].ClientID, apps[1].ClientSecret)); status != 401 {
		t.Errorf("another application's secret: %d %v", status, answer)
	}
	tokens := r.tokens(append(apps, simulator.Application{ClientID: simulator.DefaultClientID, ClientSecret: simulator.DefaultClientSecret}))
	for i, token := range tokens {
		for n, want := range []int{200, 200, 429} {
			if status, _ := r.as(token); status != want {
				t.Errorf("application %d, call %d: %d", i, n, status)
			}
		}
	}
	r.RevokeTokens(apps[3].ClientID)
	for i, want := range map[int]int{2: 429, 3: 401, 4: 429} {
		if status, _ := r.as(tokens[i]); status != want {
			t.Errorf("application %d after a revocation: %d", i, status)
		}
	}
	r.SetApplication(simulator.Application{ClientID: apps[5].ClientID})
	r.SetApplication(simulator.Application{ClientID: apps[6].ClientID, ClientSecret: "rotated"})
	for i, want := range map[int]int{5: 401, 6: 401, 7: 200} {
		if status, _ := r.fetch(form(apps[i].ClientID, apps[i].ClientSecret)); status != want {
			t.Errorf("application %d: %d", i, status)
		}
	}
}

func TestFaultOfOneApplicationLeavesTheOthers(t *testing.T) {
	apps := fifty()[:4]
	r := start(t, simulator.Options{Applications: apps})
	tokens := r.tokens(apps)
	refused, err := simulator.NamedFault("token-refused")
	if err != nil {
		t.Fatal(err)
	}
	refused.Application = apps[0].ClientID
	r.AddFault(refused)
	r.AddFault(simulator.Fault{Application: apps[1].ClientID, Status: 429})
	slow := make(chan struct{})
	r.AddFault(simulator.Fault{Application: apps[2].ClientID, Until: slow})
	for i, want := range []int{401, 200, 200, 200} {
		if status, _ := r.fetch(form(apps[i].ClientID, apps[i].ClientSecret)); status != want {
			t.Errorf("application %d: a token request got %d", i, status)
		}
	}
	for i, want := range map[int]int{0: 200, 1: 429, 3: 200} {
		if status, _ := r.as(tokens[i]); status != want {
			t.Errorf("application %d: %d", i, status)
		}
	}
	close(slow)
	if status, _ := r.as(tokens[2]); status != 200 {
		t.Errorf("the slow application: %d", status)
	}
}

func TestJournalKnowsWhoseTokenCame(t *testing.T) {
	apps := fifty()[:2]
	r := start(t, simulator.Options{Applications: apps})
	tokens := r.tokens(apps)
	r.Reset()
	for i, token := range tokens {
		for _, app := range apps {
			r.as(token, simulator.ApplicationHeader, app.ClientID)
		}
		r.as(token)
		if n := r.Counts().Misplaced; n != i+1 {
			t.Errorf("%d requests came with another's token", n)
		}
	}
	r.as("made-up")
	r.RevokeTokens()
	r.as(tokens[1])
	var got []string
	for _, q := range r.Requests() {
		got = append(got, q.Application)
	}
	if want := []string{"app-00", "app-00", "app-00", "app-01", "app-01", "app-01", "", "app-01"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if c := r.Counts(); c.Applications["app-00"] != 3 || c.Applications["app-01"] != 4 || len(c.Applications) != 2 {
		t.Errorf("%+v", c)
	}
	r.fetch(form("app-01", "wrong"))
	if q := r.Requests(); q[len(q)-1].Application != "app-01" {
		t.Errorf("a token request is of %q", q[len(q)-1].Application)
	}
}
