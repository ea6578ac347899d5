//go:build unix

package attack

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"mimecast-proxy/event"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

// insist returns the configuration of a client that always fetches a token, as many do.
func (s *stand) insist(secret string, style oauth2.AuthStyle) *clientcredentials.Config {
	return &clientcredentials.Config{ClientID: "any", ClientSecret: secret, TokenURL: "http://" + s.Listen + "/oauth/token", AuthStyle: style}
}

func (s *stand) whoami(client *http.Client) int {
	s.t.Helper()
	res, err := client.Get("http://" + s.Listen + "/identity/whoami")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode
}

func TestClientThatInsistsOnOAuthGetsThroughWithAnyCredentials(t *testing.T) {
	s := newStand(t)
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader, oauth2.AuthStyleAutoDetect} {
		cfg := s.insist("dummy", style)
		token, err := cfg.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status := s.whoami(cfg.Client(t.Context())); status != 200 {
			t.Errorf("%d", status)
		}
		for _, r := range s.arrived() {
			if strings.Contains(r.Header.Get("Authorization"), token.AccessToken) {
				t.Error("the stub's token arrived")
			}
		}
	}
	if n := s.sim.Counts().TokenRequests; n > 0 { // since the last call of arrived
		t.Errorf("%d of the clients' token requests arrived", n)
	}
}

func TestClientThatInsistsOnOAuthProvesTheKeyByItsSecret(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	const key = "key+of/this=proxy & its clients"
	s := newStand(t, "PROXY_API_KEY="+key)
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		_, err := s.insist("wrong", style).Token(t.Context())
		s.denied[string(event.APIKeyRequired)]++
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok || refused.Response.StatusCode != 401 || strings.Contains(err.Error(), key) {
			t.Errorf("%v", err)
		}
		cfg := s.insist(key, style)
		token, err := cfg.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(token.AccessToken, key) {
			t.Error("the token is the key")
		}
		if status := s.whoami(cfg.Client(t.Context())); status != 200 {
			t.Errorf("%d", status)
		}
		if n := len(s.arrived()); n != 1 {
			t.Errorf("%d requests arrived", n)
		}
		other := newStand(t, "PROXY_API_KEY=the-key-of-another-proxy")
		if status := other.whoami(oauth2.NewClient(t.Context(), oauth2.StaticTokenSource(token))); status != 401 {
			t.Errorf("another proxy takes the token: %d", status)
		}
		other.denied[string(event.APIKeyRequired)]++
	}
}

func TestTokenOfTheStubEndsWithItsKey(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	rotate := func(keys ...string) {
		if err := os.WriteFile(file+".new", []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = "the-first-key-0123456789", "the-second-key-0123456789"
	rotate(first)
	s := newStand(t, "PROXY_API_KEY_FILE="+file)
	of := func(key string) (*http.Client, error) {
		token, err := s.insist(key, oauth2.AuthStyleInParams).Token(context.Background())
		if err != nil {
			s.denied[string(event.APIKeyRequired)]++
		}
		return oauth2.NewClient(t.Context(), oauth2.StaticTokenSource(token)), err
	}
	old, err := of(first)
	if err != nil {
		t.Fatal(err)
	}
	if status := s.whoami(old); status != 200 {
		t.Errorf("%d", status)
	}
	rotate(second, first) // both are valid while clients change over
	var fresh *http.Client
	program.Await(t, "a token for the second key", func() bool { fresh, err = of(second); return err == nil })
	for _, client := range []*http.Client{old, fresh} {
		if status := s.whoami(client); status != 200 {
			t.Errorf("both keys are valid: %d", status)
		}
	}
	rotate(second)
	program.Await(t, "the end of the first key", func() bool { return s.whoami(old) == 401 })
	s.denied[string(event.APIKeyRequired)]++
	if status := s.whoami(fresh); status != 200 {
		t.Errorf("%d", status)
	}
}
