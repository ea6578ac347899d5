package admin_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/admin"
)

func TestLivenessAsksNothing(t *testing.T) {
	s := serve(t, admin.Options{
		Accounts: func() []admin.Account { panic("asked for the token") },
		Draining: func() bool { panic("asked for the drain") },
	})
	for _, path := range []string{"/livez", "/healthz"} {
		if res, body := ask(t, s, "GET", path, "Host", "10.0.0.7:19090"); res.StatusCode != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", path, res.StatusCode, body)
		}
		if res, body := ask(t, s, "HEAD", path); res.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: %d %q", path, res.StatusCode, body)
		}
	}
}

func TestReadyMeansATokenWasHeldAndNoDrainBegan(t *testing.T) {
	never := admin.TokenState{LastError: "check the secret"}
	later := admin.TokenState{Held: true, EverHeld: true, LastError: "the endpoint is down"} // expired since then
	for _, c := range []struct {
		token          admin.TokenState
		draining       bool
		startup, ready int
		reasons        []string
	}{
		{admin.TokenState{}, false, 503, 503, []string{"no token was held yet"}},
		{never, false, 503, 503, []string{"no token was held yet: check the secret"}},
		{later, false, 200, 200, nil},
		{later, true, 200, 503, []string{"the proxy is shutting down"}},
		{never, true, 503, 503, []string{"no token was held yet: check the secret", "the proxy is shutting down"}},
	} {
		s := serve(t, admin.Options{Accounts: having(c.token), Started: time.Now(), Draining: func() bool { return c.draining }})
		if res, _ := ask(t, s, "GET", "/startupz"); res.StatusCode != c.startup {
			t.Errorf("%+v: startup %d", c, res.StatusCode)
		}
		res, body := ask(t, s, "GET", "/readyz")
		var got struct {
			Ready   bool
			Reasons []string
			Tokens  map[string]struct{ Held bool }
			Token   struct {
				Held      bool
				LastError string `json:"last_error"`
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.ready || got.Ready != (c.ready == 200) || strings.Join(got.Reasons, "; ") != strings.Join(c.reasons, "; ") ||
			got.Token.Held != c.token.Held || got.Tokens["default"].Held != c.token.Held || got.Token.LastError != c.token.LastError || !strings.Contains(body, `"reasons":[`) {
			t.Errorf("%+v: %d %s", c, res.StatusCode, body)
		}
	}
}

func TestStartWaitsAMinuteForTokens(t *testing.T) {
	none, held := admin.Account{Name: "emea"}, admin.Account{Name: "default", Token: admin.TokenState{Held: true, EverHeld: true}}
	for _, c := range []struct {
		name           string
		age            time.Duration
		all            []admin.Account
		startup, ready int
	}{
		{"at first", 0, []admin.Account{none}, 503, 503},
		{"after a minute", time.Minute, []admin.Account{none}, 200, 503},
		{"one of two, at first", 0, []admin.Account{held, none}, 503, 503},
		{"one of two, after a minute", time.Minute, []admin.Account{held, none}, 200, 200},
		{"all", 0, []admin.Account{held}, 200, 200},
	} {
		s := serve(t, admin.Options{Accounts: func() []admin.Account { return c.all }, Started: time.Now().Add(-c.age)})
		if res, body := ask(t, s, "GET", "/startupz"); res.StatusCode != c.startup {
			t.Errorf("%s: startup %d %s", c.name, res.StatusCode, body)
		}
		if res, body := ask(t, s, "GET", "/readyz"); res.StatusCode != c.ready {
			t.Errorf("%s: ready %d %s", c.name, res.StatusCode, body)
		}
	}
}

func TestReadyMeansThatEachAccountHeldATokenOnce(t *testing.T) {
	held := admin.TokenState{Held: true, EverHeld: true, Valid: true}
	var all []admin.Account
	s := serve(t, admin.Options{Accounts: func() []admin.Account { return all }, Started: time.Now()})
	for _, step := range []struct {
		name   string
		all    []admin.Account
		status int
		want   string
	}{
		{"one of two", []admin.Account{{Name: "default", Token: held}, {Name: "emea", Token: admin.TokenState{LastError: "down"}}}, 503, "account emea: no token was held yet: down"},
		{"both", []admin.Account{{Name: "default", Token: held}, {Name: "emea", Token: held}}, 200, `"emea":{"held":true`},
		{"an account that was added later", []admin.Account{{Name: "default", Token: held}, {Name: "new"}}, 200, `"new":{"held":false`},
	} {
		all = step.all
		if res, body := ask(t, s, "GET", "/readyz"); res.StatusCode != step.status || !strings.Contains(body, step.want) {
			t.Errorf("%s: %d %s", step.name, res.StatusCode, body)
		}
		if res, body := ask(t, s, "GET", "/startupz"); res.StatusCode != step.status {
			t.Errorf("%s: startup: %d %s", step.name, res.StatusCode, body)
		}
	}
}
