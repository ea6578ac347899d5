package config

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// Setting is the current value of one variable.
type Setting struct {
	// Name is the name of the variable.
	Name string
	// Value is the value, without secrets. For a credential, it is the length in
	// characters or the number of keys.
	Value string
	// Origin is [OriginDefault], [OriginVariable] or [OriginStored]. For a file, it is
	// "file " and the path.
	Origin string
	// Changed is the modification time of a secret's file; zero for other settings.
	Changed time.Time
}

// Origins of settings, in [Setting.Origin].
const (
	OriginDefault  = "default"  // the variable is not set
	OriginVariable = "variable" // the variable is set
	OriginStored   = "stored connection"
)

// visibleValues returns the explicitly set values, without those that may contain a
// secret. It returns nil if there are none. It also returns nil for a configuration
// with errors, since any invalid value may contain a secret.
func (p *parser) visibleValues() map[string]Setting {
	if len(p.errs) > 0 {
		return nil
	}
	var given map[string]Setting
	for _, v := range Variables() {
		if value, ok := p.environ[v.Name]; ok && !v.File && v.Name != "HTTPS_PROXY" {
			if given == nil {
				given = map[string]Setting{}
			}
			origin := OriginVariable
			if p.fromStored[v.Name] {
				origin = OriginStored
			}
			given[v.Name] = Setting{Name: v.Name, Value: value, Origin: origin}
		}
	}
	return given
}

// Settings returns the settings in use, in the order of [Variables].
func (c Config) Settings() []Setting {
	var all []Setting
	for _, v := range Variables() {
		s := Setting{Name: v.Name, Value: v.Default, Origin: OriginDefault}
		if value, ok := c.values[v.Name]; ok {
			s = value
		} else if computed := c.dynamicDefault(v.Name); computed != "" {
			s.Value = computed
		}
		switch v.Name {
		case "MIMECAST_CLIENT_ID":
			s = c.credential(s, c.ClientID)
		case "MIMECAST_CLIENT_SECRET":
			s = c.credential(s, c.ClientSecret)
		case "PROXY_API_KEY":
			s = c.credential(s, c.APIKey)
		case "HTTPS_PROXY":
			if raw := c.HTTPSProxy.Reveal(); raw != "" {
				s.Value, s.Origin = redactUser(raw), OriginVariable
			}
		}
		all = append(all, s)
	}
	return all
}

// dynamicDefault returns the default of a variable whose default is not fixed; empty
// for all others.
func (c Config) dynamicDefault(name string) string {
	switch name {
	case "MIMECAST_REGION":
		if c.Region == "" {
			return "none, since MIMECAST_BASE_URL is set"
		}
	case "MIMECAST_BASE_URL":
		return c.BaseURL.String()
	case "MIMECAST_TOKEN_URL":
		return c.TokenURL.String()
	case "PROXY_REPLAY_MEMORY":
		return size(c.ReplayMemory).String()
	case "GOMEMLIMIT":
		return "none"
	}
	return ""
}

// credential returns s with the length and origin of a credential.
func (c Config) credential(s Setting, from Credential) Setting {
	values := from.Values()
	if len(values) == 0 {
		return s
	}
	s.Value, s.Origin = fmt.Sprintf("set, %d characters", utf8.RuneCountInString(values[0].Reveal())), OriginVariable
	if len(values) > 1 {
		s.Value = fmt.Sprintf("set, %d keys", len(values))
	}
	switch origin := c.Origin(from); {
	case from.Variable() == profileVariable:
		s.Origin = origin
	case origin != from.Variable():
		s.Origin = "file " + origin
		if info, err := os.Stat(origin); err == nil { // a deleted file has no time
			s.Changed = info.ModTime()
		}
	}
	return s
}

// redactUser returns the URL of a corporate proxy without user and password.
func redactUser(raw string) string {
	text := raw
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "set"
	}
	user := ""
	if u.User != nil {
		user = "[redacted]@"
	}
	return cmp.Or(u.Scheme, "http") + "://" + user + u.Host
}
