// Package token is an OAuth 2.0 token source that renews its bearer token in the
// background.
//
// A [Source] caches the current token, renews it well before it expires, replaces it if
// Mimecast rejects it, and backs off while the token endpoint fails.
// [ClientCredentials] fetches a token by the client credentials grant (RFC 6749,
// section 4.4).
//
// Reading the current token takes no lock and allocates nothing. No request waits for a
// renewal that could have been made earlier.
package token

import (
	"fmt"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/secret"
)

// Lifetimes.
const (
	// DefaultLifetime is used if the token endpoint sends no lifetime: Mimecast's 30
	// minutes, less one as a margin.
	DefaultLifetime = 29 * time.Minute
	// MaxLifetime is the longest lifetime that is accepted, so that an absurd one does
	// not switch renewal off.
	MaxLifetime = 24 * time.Hour
)

// Token is a bearer token (RFC 6750). It is immutable.
type Token struct {
	header  secret.Text // "Bearer …", made once
	fetched time.Time
	expiry  time.Time
}

// New returns a token that was requested at fetched and expires at expiry.
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

// Fetched returns when the token was requested.
func (t *Token) Fetched() time.Time { return t.fetched }

// Expiry returns when the token stops being valid, by the wall clock.
func (t *Token) Expiry() time.Time { return t.expiry }

// ValidAt reports whether the token has not expired at now. A nil token is not valid.
func (t *Token) ValidAt(now time.Time) bool { return t != nil && now.Before(t.expiry) }

// renewAt returns when the background renewal is due: with a quarter of the
// lifetime left, but at most five minutes. Mimecast's tokens live 30
// minutes, so a shorter outage of the token endpoint affects no request.
func (t *Token) renewAt() time.Time {
	return t.expiry.Add(-min(t.expiry.Sub(t.fetched)/4, 5*time.Minute))
}

// renewalDue reports whether a background renewal is due at now. A clock that was
// set back before the token was fetched no longer shows its age.
func (t *Token) renewalDue(now time.Time) bool {
	return !now.Before(t.renewAt()) || now.Before(t.fetched.Add(-time.Minute))
}

// Error is a failed token request. Its text never contains the token endpoint's response
// body, since a response may echo the secret.
type Error struct {
	// Outcome is event.TokenRefused or event.TokenFailed.
	Outcome event.TokenOutcome
	// Reason is for the operator: what happened and what to do.
	Reason string
	// Status is the token endpoint's HTTP status; 0 if there was no response.
	Status int
	// RetryAfter is how long to wait before the next token request; 0 if the token
	// endpoint sent no such time.
	RetryAfter time.Duration
	// Err is the cause; it may be nil.
	Err error
}

// Error returns the reason and the cause, if any.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return e.Reason
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
