// Package token keeps one bearer token, always fresh.
//
// A [Source] holds the current token, renews it in the background well before
// it expires, replaces it when Mimecast rejects it, and backs off while the
// token endpoint fails. [ClientCredentials] is how a token is fetched: the
// OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
//
// Reading a held token takes no lock and allocates nothing, so that no request
// ever waits for a renewal which could have been made earlier.
package token

import (
	"fmt"
	"time"

	"mimecast-proxy/secret"

	"mimecast-proxy/event"
)

// Lifetimes.
const (
	// DefaultLifetime stands in for a lifetime that the token endpoint does
	// not name: Mimecast's 30 minutes, less one for what it cannot know.
	DefaultLifetime = 29 * time.Minute
	// MaxLifetime bounds what is believed, so that an absurd lifetime does
	// not switch renewal off.
	MaxLifetime = 24 * time.Hour
)

// Token is a bearer token (RFC 6750). It is immutable.
type Token struct {
	header  secret.Text // "Bearer …", made once
	fetched time.Time
	expiry  time.Time
}

// New returns a token that was asked for at fetched and lives until expiry.
// Both are stripped of their monotonic reading: a monotonic clock stands still
// while a machine sleeps, and the token does not.
func New(text string, fetched, expiry time.Time) *Token {
	return &Token{header: secret.New(scheme + text), fetched: fetched.Round(0), expiry: expiry.Round(0)}
}

// scheme is what a bearer token is sent with, whatever case token_type had.
const scheme = "Bearer "

// Authorization returns the value of the Authorization header (RFC 6750,
// section 2.1).
func (t *Token) Authorization() string { return t.header.Reveal() }

// Fetched returns when the token was asked for.
func (t *Token) Fetched() time.Time { return t.fetched }

// Expiry returns when the token stops being valid, by the wall clock.
func (t *Token) Expiry() time.Time { return t.expiry }

// ValidAt reports whether the token is still to be used at now.
func (t *Token) ValidAt(now time.Time) bool { return t != nil && now.Before(t.expiry) }

// renewAt returns when the background renewal is due: with a quarter of the
// lifetime left, but five minutes at the most. Mimecast's tokens live 30
// minutes, so an outage of the token endpoint of less than five is not seen.
func (t *Token) renewAt() time.Time {
	return t.expiry.Add(-min(t.expiry.Sub(t.fetched)/4, 5*time.Minute))
}

// renewalDue reports whether a background renewal is due at now. A clock that was
// set back before the token was fetched says nothing about its age any more.
func (t *Token) renewalDue(now time.Time) bool {
	return !now.Before(t.renewAt()) || now.Before(t.fetched.Add(-time.Minute))
}

// Error is why there is no token. Its text never holds what the token endpoint
// answered, since an answer may echo the secret.
type Error struct {
	// Outcome is event.TokenRefused or event.TokenFailed.
	Outcome event.TokenOutcome
	// Reason is a sentence for a person: what happened and what to do next.
	Reason string
	// Status is the token endpoint's HTTP status; 0 where none was received.
	Status int
	// RetryAfter is how long the token endpoint asked to be left alone; 0
	// where it did not.
	RetryAfter time.Duration
	// Err is the cause; it may be nil.
	Err error
}

// Error returns the reason and the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
