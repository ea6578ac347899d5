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

// redactSecrets adds the client secrets and the corporate proxies' passwords to a redactor. It
// reports no unreadable files: the code that needs the secret does.
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

// redactKeys adds the current API keys and their stub tokens to a redactor.
func redactKeys(r *telemetry.Redactor, keys ...secret.Text) {
	texts := slices.Clone(keys)
	for _, key := range keys {
		texts = append(texts, guard.StubToken(key))
	}
	r.Set("API key", texts...)
}

// redactToken adds an account's token to a redactor, before any request carries it. The
// redactor keeps the last 16 tokens of the default account. Of other accounts, which may be
// many, it keeps the current and the previous token.
func redactToken(r *telemetry.Redactor, name string, tok *token.Token) {
	_, text, _ := strings.Cut(tok.Authorization(), " ")
	if name == account.Default {
		r.Add(secret.New(text))
	} else {
		r.Set("token of "+name, secret.New(text))
	}
}
