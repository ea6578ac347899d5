package app

import (
	"net/url"
	"slices"
	"strings"

	"mimecast-proxy/account"
	"mimecast-proxy/config"
	"mimecast-proxy/guard"
	"mimecast-proxy/secret"
	"mimecast-proxy/telemetry"
	"mimecast-proxy/token"
)

// redactSecrets makes the configuration's secrets known to a redactor. A file that
// cannot be read is reported where its secret is needed.
func redactSecrets(r *telemetry.Redactor, cfg config.Config) {
	r.Set("client secret", cfg.ClientSecret.Values()...)
	var passwords []secret.Text
	for _, raw := range []secret.Text{cfg.HTTPProxy, cfg.HTTPSProxy} {
		text := raw.Reveal()
		if !strings.Contains(text, "://") {
			text = "http://" + text
		}
		if u, err := url.Parse(text); err == nil {
			password, _ := u.User.Password()
			passwords = append(passwords, secret.New(password))
		}
	}
	r.Set("corporate proxy", passwords...)
}

// redactKeys makes the keys in force known to a redactor, and the stub's tokens.
func redactKeys(r *telemetry.Redactor, keys ...secret.Text) {
	texts := slices.Clone(keys)
	for _, key := range keys {
		texts = append(texts, guard.StubToken(key))
	}
	r.Set("API key", texts...)
}

// redactToken makes an account's token known to a redactor, before any request bears it.
// Of further accounts, of which there may be many, it knows the token before that too.
func redactToken(r *telemetry.Redactor, name string, tok *token.Token) {
	_, text, _ := strings.Cut(tok.Authorization(), " ")
	if name == account.Default {
		r.Add(secret.New(text))
	} else {
		r.Set("token of "+name, secret.New(text))
	}
}
