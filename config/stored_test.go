package config_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/event"
	"mimecast-proxy/secret"
)

// profiles has stored connections by name.
type profiles map[string]*config.Stored

func (p profiles) Find(name string) (*config.Stored, error) {
	if name == "broken" {
		return nil, errors.New("the list is damaged")
	}
	return p[name], nil
}

func (p profiles) Names() []string { return []string{"emea", "default"} }

// storing returns a connection whose document is *text: ID and secret, separated by a
// space.
func storing(text *string, fill func(*config.Stored)) *config.Stored {
	s := &config.Stored{
		Place: "the keyring",
		Read: func() ([]byte, error) {
			if *text == "" {
				return nil, errors.New("the keyring is locked")
			}
			return []byte(*text), nil
		},
		Parse: func(document []byte) (secret.Text, secret.Text, error) {
			id, key, ok := strings.Cut(string(document), " ")
			if !ok {
				return secret.Text{}, secret.Text{}, errors.New("is damaged")
			}
			return secret.New(id), secret.New(key), nil
		},
	}
	if fill != nil {
		fill(s)
	}
	return s
}

func TestStoredConnectionIsUsedWhereNoVariableNamesCredentials(t *testing.T) {
	document := "id1 " + marked
	all := profiles{
		"default": storing(&document, func(s *config.Stored) { s.Region = "uk" }),
		"emea":    storing(&document, func(s *config.Stored) { s.BaseURL, s.TokenURL = "https://a.example", "https://b.example/t" }),
	}
	for _, c := range []struct{ environ, base, token, id, region string }{
		{"", "https://uk-api.services.mimecast.com", "https://uk-api.services.mimecast.com/oauth/token", "id1", "stored connection"},
		{"MIMECAST_PROFILE=emea", "https://a.example", "https://b.example/t", "id1", "default"},
		{"MIMECAST_REGION=us", "https://us-api.services.mimecast.com", "https://us-api.services.mimecast.com/oauth/token", "id1", "variable"},
		{"MIMECAST_PROFILE=emea MIMECAST_BASE_URL=https://c.example", "https://c.example", "https://c.example/oauth/token", "id1", "default"},
		{"MIMECAST_CLIENT_ID=own MIMECAST_CLIENT_SECRET=own MIMECAST_PROFILE=missing", "https://api.services.mimecast.com", "https://api.services.mimecast.com/oauth/token", "own", "default"},
	} {
		cfg, err := config.Parse(strings.Fields(c.environ), all)
		if err != nil {
			t.Errorf("%s: %v", c.environ, err)
			continue
		}
		equal(t, c.environ+": base URL", cfg.BaseURL.String(), c.base)
		equal(t, c.environ+": token URL", cfg.TokenURL.String(), c.token)
		equal(t, c.environ+": client ID", cfg.ClientID.Value().Reveal(), c.id)
		equal(t, c.environ+": is stored", cfg.IsStored(), c.id == "id1")
		for _, s := range cfg.Settings() {
			if s.Name == "MIMECAST_REGION" {
				equal(t, c.environ+": origin of the region", s.Origin, c.region)
			}
			if s.Name == "MIMECAST_CLIENT_SECRET" && cfg.IsStored() {
				equal(t, "secret", s.Value, "set, 13 characters")
				if !strings.HasPrefix(s.Origin, "the keyring, profile ") {
					t.Errorf("origin of the secret: %q", s.Origin)
				}
			}
			if strings.Contains(s.Value, marked) {
				t.Errorf("%s shows the secret", s.Name)
			}
		}
	}
}

func TestConnectionThatCannotBeUsedIsNamed(t *testing.T) {
	locked, damaged := "", "nothing"
	all := profiles{"locked": storing(&locked, nil), "damaged": storing(&damaged, nil)}
	for environ, says := range map[string]string{
		"MIMECAST_PROFILE=missing": `MIMECAST_PROFILE: no connection is stored as "missing"; accepted: a stored connection: emea, default`,
		"MIMECAST_PROFILE=broken":  `the connection "broken" cannot be read: the list is damaged`,
		"MIMECAST_PROFILE=locked":  `the connection "locked" cannot be read from the keyring: the keyring is locked`,
		"MIMECAST_PROFILE=damaged": `is damaged`,
	} {
		_, err := config.Parse([]string{environ}, all)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "MIMECAST_CLIENT_ID:") {
			t.Errorf("%s: %v", environ, err)
		}
	}
	// Without a stored connection and MIMECAST_PROFILE, the error names the missing
	// variables.
	for _, environ := range [][]string{nil, {"MIMECAST_CLIENT_ID=x"}} {
		_, err := config.Parse(environ, all)
		if err == nil || !strings.Contains(err.Error(), "MIMECAST_CLIENT_SECRET: not set") {
			t.Errorf("%q: %v", environ, err)
		}
	}
}

func TestStoredConnectionIsReadAgainAfterItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards document, reads and reports
		document, reads := "id1 secret1", 0
		var reports []string
		store := func(text string) { mu.Lock(); defer mu.Unlock(); document = text }
		stored := storing(&document, func(s *config.Stored) {
			read := s.Read
			s.Interval = 6 * time.Second
			s.Read = func() ([]byte, error) { mu.Lock(); defer mu.Unlock(); reads++; return read() }
		})
		cfg, err := config.Parse(nil, profiles{"default": stored})
		do(t, err)
		reread := make(chan struct{})
		w := &config.Watcher{Files: cfg.Files, Report: func(f *config.File, o event.ReloadOutcome, _ error) {
			mu.Lock()
			defer mu.Unlock()
			reports = append(reports, f.Variable+" "+string(o))
		}}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx, reread) }()
		time.Sleep(time.Minute)
		mu.Lock()
		if reads < 9 || reads > 12 {
			t.Errorf("%d reads in a minute", reads)
		}
		mu.Unlock()
		store("id2 secret2")
		time.Sleep(10 * time.Second)
		equal(t, "client ID", cfg.ClientID.Value().Reveal(), "id2")
		equal(t, "secret", cfg.ClientSecret.Value().Reveal(), "secret2")
		store("") // the keyring is now locked
		time.Sleep(10 * time.Second)
		equal(t, "secret", cfg.ClientSecret.Value().Reveal(), "secret2")
		store("id3 secret3")
		reread <- struct{}{} // a signal takes effect before the interval ends
		time.Sleep(time.Second)
		equal(t, "secret", cfg.ClientSecret.Value().Reveal(), "secret3")
		stop()
		<-done
		equal(t, "reports", strings.Join(reports, ", "), "MIMECAST_PROFILE changed, MIMECAST_PROFILE failed, MIMECAST_PROFILE changed")
	})
}
